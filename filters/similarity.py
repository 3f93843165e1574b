"""Keep pairs whose picture and text agree."""

from dataclasses import dataclass

from filters.base import register
from filters.measured import AtLeast


@register("similarity")
@dataclass(frozen=True, kw_only=True)
class Similarity(AtLeast):
    """Bound on the cosine of picture and text."""

    columns = ("similarity", "conse")

    min: float
    """Cosine, kept when equal. A bound belongs to one model: LAION's 0.28 is for CLIP ViT-B/32 and means nothing for another."""
    column: str = "similarity"
