"""Say how far a counted share or a mean may be from the true one: intervals at 95 %."""

from dataclasses import dataclass
from math import sqrt

Z = 1.959963984540054
"""Half width of 95 % of the normal distribution, in standard deviations."""


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with Wilson's interval; rate, low and high are 0..1, none where nothing was looked at."""

    hits: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


def share(hits: int, of: int) -> Share:
    """Return a share with Wilson's score interval (1927), which holds for few hits too."""
    if not of:
        return Share(hits, of, None, None, None)
    low, high = _wilson(hits, of)
    return Share(hits, of, hits / of, low, high)


def _wilson(hits: int, of: int) -> tuple[float, float]:
    rate = hits / of
    middle = (rate + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z / (1 + Z * Z / of) * sqrt(rate * (1 - rate) / of + Z * Z / (4 * of * of))
    return (0.0 if not hits else max(0.0, middle - half)), (1.0 if hits == of else min(1.0, middle + half))


@dataclass(frozen=True)
class Difference:
    """One number less another, with its interval; `apart`: the interval leaves 0 out. All none where one is unknown."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def apart(self) -> bool:
        """Tell whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


UNKNOWN = Difference(None, None, None)


def share_difference(one: Share, other: Share) -> Difference:
    """Return a share less another of other rows: Newcombe's hybrid of their Wilson intervals (1998, method 10)."""
    if one.rate is None or other.rate is None:
        return UNKNOWN
    value = one.rate - other.rate
    low = sqrt((one.rate - (one.low or 0.0)) ** 2 + ((other.high or 0.0) - other.rate) ** 2)
    high = sqrt(((one.high or 0.0) - one.rate) ** 2 + (other.rate - (other.low or 0.0)) ** 2)
    return Difference(value, value - low, value + high)


def paired_difference(only_one: int, only_other: int, of: int) -> Difference:
    """Return how much more often the one holds than the other on the same rows, as a share of them: of `of` rows
    `only_one` have the one alone. Wald's interval for paired shares, with half a row added to each of the four cells
    (Agresti and Min 2005)."""
    if not of:
        return UNKNOWN
    rows, one, other = of + 2, only_one + 0.5, only_other + 0.5
    value = (one - other) / rows
    half = Z * sqrt(max(one + other - (one - other) ** 2 / rows, 0.0)) / rows
    return Difference((only_one - only_other) / of, value - half, value + half)


@dataclass(frozen=True)
class Mean:
    """A mean of `of` values and its interval from the normal distribution; none of fewer than two."""

    of: int
    mean: float | None
    low: float | None
    high: float | None
    error: float | None
    """Standard error of the mean."""


def mean(of: int, total: float, squares: float) -> Mean:
    """Return the mean of values, given their number, their sum and the sum of their squares."""
    if of < 2:
        return Mean(of, total / of if of else None, None, None, None)
    middle = total / of
    error = sqrt(max(squares - total * middle, 0.0) / (of - 1) / of)
    return Mean(of, middle, middle - Z * error, middle + Z * error, error)


def mean_difference(one: Mean, other: Mean) -> Difference:
    """Return a mean less another of other rows, with Welch's standard error and the normal distribution."""
    if one.mean is None or other.mean is None or one.error is None or other.error is None:
        return UNKNOWN
    value, half = one.mean - other.mean, Z * sqrt(one.error**2 + other.error**2)
    return Difference(value, value - half, value + half)
