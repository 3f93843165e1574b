"""Write numbers and the words of strangers as the report does, for its templates."""

from typing import Any

CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
"""Control characters but tab, line feed and carriage return."""
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Embeddings, overrides and isolates: they turn round the text that follows, past the end of a caption too."""
REPLACED = dict.fromkeys((*CONTROLS, *BIDI), "\ufffd")


def count(number: int) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u2009")


def fixed(number: float, digits: int) -> str:
    """Return a number with so many digits after the point."""
    return f"{number:.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent, with its sign."""
    return f"{share:.{digits}%}"


def printable(value: Any) -> Any:
    """Return a text with U+FFFD for each control character and bidirectional override; safe markup stays so.

    What is no text comes back as it is.
    """
    return value.translate(REPLACED) if isinstance(value, str) else value
