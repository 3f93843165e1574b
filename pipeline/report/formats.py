"""Write numbers as the report does; the templates have these functions as filters."""


def count(number: int) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u2009")


def fixed(number: float, digits: int) -> str:
    """Return a number with so many digits after the point."""
    return f"{number:.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent, with its sign."""
    return f"{share:.{digits}%}"
