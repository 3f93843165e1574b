"""Keep pictures that people would call beautiful."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from filters.base import Rule, at_least, register


@register("aesthetic")
@dataclass(frozen=True, kw_only=True)
class Aesthetic(Rule):
    """Bound on LAION's aesthetic score."""

    min: float
    """Score, kept when equal. v1 runs from about 0 to 10, v2 from about 1 to 10, and they are not the same scale."""
    model: Literal["v1", "v2"] = "v2"
    """The predictor whose score is read: two scales."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column of the model."""
        return (f"aesthetic_{self.model}",)

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Compare the score with the bound."""
        return at_least(batch, self.inputs[0], self.min)
