"""Keep pictures that are neither too small nor too large."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Rule, register


@register("size")
@dataclass(frozen=True, kw_only=True)
class Size(Rule):
    """Bounds on the sides of a picture."""

    inputs = ("width", "height")

    min_side: int = 256
    """Pixels of the short side, kept when equal."""
    max_side: int | None = None
    """Pixels of the long side, kept when equal; none: no bound."""

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Compare the short and the long side with their bounds."""
        sides = [batch.column(name) for name in self.inputs]
        kept = pc.greater_equal(pc.min_element_wise(*sides, skip_nulls=False), self.min_side)
        return (
            kept
            if self.max_side is None
            else pc.and_(kept, pc.less_equal(pc.max_element_wise(*sides, skip_nulls=False), self.max_side))
        )
