"""Hand rows that a leg has sent to readers that are no units of its shuffle, part by part, wherever they were grouped.

On this machine they stay where the leg wrote them: a slice of each of its files. On a cluster Beam groups them
(grouped.py), and the end of that pipeline writes a file of one slice for each part. Readers sort them by their full
key: in slices they stand in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from manifests.files import digest_of
from manifests.journal import Journal, ShardRecord
from manifests.layout import SCRATCH
from pipeline.execution.shuffle import Gathered, Leg, Slices, do_pending, here, pending_of, record_slices
from pipeline.execution.slices import read_slice
from pipeline.execution.step import Do, Unit


@dataclass(frozen=True)
class Delivered(Gathered):
    """The end of a shuffle of one leg. Its units are the parts, done behind Beam's grouping alone."""

    key: ClassVar[tuple[str, ...]] = ()
    """Columns that tell a part's rows apart: in order of them a file has the same bytes at each attempt."""

    @classmethod
    def where(cls, root: Path) -> Path:
        """Return where its files lie: beside the slices of its leg."""
        return root / SCRATCH / cls.legs[0].into

    @property
    def journal(self) -> Journal:
        """Return the journal beside them; what it records is relative to `where`."""
        return Journal(self.where(self.root), self.name)

    @cached_property
    def leg(self) -> Leg:
        """Return the leg whose rows it delivers."""
        return self.before()[0]

    def is_small(self, pending: Sequence[Unit]) -> bool:
        """Return False: where there is little to move, the leg's own units are done, and none of these."""
        return False

    def plan(self) -> list[Unit]:
        """Return a unit for each part of the leg."""
        sent = self.leg.units()
        parts = sent[0].reads["parts"] if sent else 0
        content, rows = digest_of([unit.key for unit in sent]), sum(unit.reads["rows"] for unit in sent)
        return [Unit(f"{part:05d}", {"part": part, "rows": rows // parts}, content) for part in range(parts)]

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Move the rows where that is not done, in one way or the other, and drop what was moved in the other."""
        way, other = (self, self.leg) if self._is_whole() or (grouped and self._is_much()) else (self.leg, self)
        other.journal.forget_others(())
        do_pending(way, do)

    def _is_whole(self) -> bool:
        return self.journal.folder.is_dir() and not pending_of(self)

    def _is_much(self) -> bool:
        """Tell whether the leg has more to move than the driver does sooner itself."""
        pending = pending_of(self.leg)
        return bool(pending) and not self.leg.is_small(pending)

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write `.shuffle/INTO/NAME/PART.slices`, a file of one slice."""
        ordered = rows.combine_chunks().sort_by([(name, "ascending") for name in self.key])
        pieces = ((np.zeros(batch.num_rows, np.uint16), batch) for batch in ordered.to_batches())
        return record_slices(self.leg, self.name, unit, 1, pieces)


@dataclass(frozen=True)
class Rows:
    """What was delivered: slices of a leg, or in their place a file for each part."""

    slices: Slices
    folder: Path

    @classmethod
    def of(cls, end: type[Delivered], root: Path) -> Self:
        """Find what lies in the run at `root`."""
        return cls(Slices.of(end.legs[0], root), end.where(root) / end.name)

    def of_part(self, part: int) -> pa.Table:
        """Return the rows of a part, in any order."""
        own = self.folder / f"{part:05d}.slices"
        if not own.exists():
            return self.slices.of_part(part)
        return pa.Table.from_batches(read_slice(own, 0, self.slices.schema), self.slices.schema)
