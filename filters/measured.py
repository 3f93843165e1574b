"""Judge a row by one of several columns that measure the same thing, each on its own scale."""

from dataclasses import dataclass
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Rule, RuleError, at_least, at_most


@dataclass(frozen=True, kw_only=True)
class Measured(Rule):
    """A bound on one of `columns`. Where that is null, `otherwise` judges: the same filter on another column, with its
    own bound."""

    columns: ClassVar[tuple[str, ...]] = ()

    column: str
    """The column that is compared."""
    otherwise: Self | None = None
    """Where the column is null: another column of the filter, with a bound of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.column not in self.columns:
            raise RuleError(f"filter {self.use!r}: column = {self.column!r}, wanted one of {', '.join(self.columns)}")
        if self.otherwise and self.column in self.otherwise.inputs:
            raise RuleError(
                f"filter {self.use!r}: otherwise reads {self.column!r} again; name another column of"
                f" {', '.join(self.columns)}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column, then those of `otherwise`."""
        return (self.column, *(self.otherwise.inputs if self.otherwise else ()))

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Judge by the column, and rows where it is null by `otherwise`."""
        verdict = self.verdict(batch)
        return pc.coalesce(verdict, self.otherwise.keep(batch)) if self.otherwise else verdict

    def verdict(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Judge by the column alone."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AtLeast(Measured):
    """Keep rows whose value is `min` or more."""

    min: float

    def verdict(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Judge by the column alone."""
        return at_least(batch, self.column, self.min)


@dataclass(frozen=True, kw_only=True)
class AtMost(Measured):
    """Keep rows whose value is `max` or less."""

    max: float

    def verdict(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Judge by the column alone."""
        return at_most(batch, self.column, self.max)
