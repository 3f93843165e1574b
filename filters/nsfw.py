"""Keep pictures that are safe to show."""

from dataclasses import dataclass

from filters.base import register
from filters.measured import AtMost


@register("nsfw")
@dataclass(frozen=True, kw_only=True)
class Nsfw(AtMost):
    """Bound on the probability of unsafe content."""

    columns = ("punsafe", "clip_nsfw", "opennsfw")

    max: float
    """Probability, 0..1, kept when equal. The two detectors have different scales; LAION's sets were cut at punsafe
    0.5."""
    column: str = "punsafe"
