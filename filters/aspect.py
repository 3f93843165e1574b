"""Keep pictures that are not long and narrow."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Rule, register


@register("aspect")
@dataclass(frozen=True, kw_only=True)
class Aspect(Rule):
    """Bound on how many times longer one side is than the other."""

    inputs = ("width", "height")

    max: float = 3.0
    """Long side over short side, kept when equal; 3 is DataComp's."""

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Compare the long side with the short side times the bound; an empty side is never kept."""
        sides = [batch.column(name).cast(pa.float64()) for name in self.inputs]
        short, long = pc.min_element_wise(*sides, skip_nulls=False), pc.max_element_wise(*sides, skip_nulls=False)
        return pc.and_(pc.greater(short, 0.0), pc.less_equal(long, pc.multiply(short, self.max)))
