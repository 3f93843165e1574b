"""Keep pairs whose picture and text agree."""

from dataclasses import dataclass

from filters.base import RuleError, register
from filters.measured import AtLeast

SCALES = {"similarity": "ViT-B-32", "conse": "ConSE"}
"""Columns whose scale is known: LAION's `similarity` is CLIP ViT-B/32's."""


@register("similarity")
@dataclass(frozen=True, kw_only=True)
class Similarity(AtLeast):
    """Bound on the cosine of picture and text."""

    columns = ("similarity", "clip_similarity", "clip_similarity_caption", "conse")

    min: float
    """Cosine, kept when equal. A bound belongs to one model: LAION's 0.28 is for CLIP ViT-B/32 and means nothing for
    another."""
    column: str = "similarity"
    model: str = ""
    """The model whose scale the bound is on, such as "ViT-B-32" or "ViT-L-14". It must be given for what the recipe's
    own CLIP computes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = SCALES.get(self.column)
        if known and self.scale not in ("", known):
            raise RuleError(
                f"filter {self.use!r}: model = {self.model!r}, but column {self.column!r} is on the scale of {known!r}"
            )
        if not known and not self.model:
            wanted = f"column {self.column!r} has the scale of score.clip.model; say which one the bound means"
            raise RuleError(f'filter {self.use!r}: {wanted}: model = "ViT-L-14"')

    @property
    def scale(self) -> str:
        """Return the model's name without what only says how its activation is written."""
        return self.model.removesuffix("-quickgelu")
