"""Keep pictures without a watermark."""

from dataclasses import dataclass

from filters.base import register
from filters.measured import AtMost


@register("watermark")
@dataclass(frozen=True, kw_only=True)
class Watermark(AtMost):
    """Bound on the sign of a watermark."""

    columns = ("pwatermark", "stock_mark")

    max: float = 0.5
    """0..1, kept when equal: a probability for `pwatermark`; for `stock_mark` a stock agency's word is 1, other text
    below 0.5."""
    column: str = "pwatermark"
