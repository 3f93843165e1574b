"""filter / decide, between its halves: rows that pass and have twins meet, cluster by cluster, and files say which of
them lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from filters.survivors import Candidates, halves
from filters.verdicts import Numbers
from manifests.files import digest_of, writing
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.store import mapped
from pipeline.execution.shuffle import Gathered, Leg, parts_for
from pipeline.execution.slices import Piece
from pipeline.execution.step import Unit
from pipeline.steps.arrow_files import read_arrow
from pipeline.steps.evaluate import CONTESTED, scratch_of


@dataclass(frozen=True)
class Rivals(Leg):
    """The rows that must meet, on their way to parts by equal ranges of their clusters' first half, which is a hash.
    Units are those of evaluate."""

    name: ClassVar[str] = "rivals"
    into: ClassVar[str] = "losers"
    carried: ClassVar[pa.Schema] = CONTESTED

    @cached_property
    def evaluated(self) -> list[ShardRecord]:
        """Return what evaluate has finished."""
        return records_of(scratch_of(self.root), "evaluate")

    def rows(self) -> int:
        """Return how many rows must meet."""
        return sum(int(record.read["contested"]) for record in self.evaluated)

    def parts(self) -> int:
        """Return how many parts hold them."""
        return parts_for(self.rows(), CONTESTED)

    def reads(self) -> str:
        """Return a digest of these rows."""
        return digest_of([record.files[1].sha256 for record in self.evaluated])

    def plan(self) -> list[Unit]:
        """Return a unit for each unit of evaluate."""
        parts = self.parts()
        return [
            Unit(
                record.shard,
                {"parts": parts, "rows": record.read["contested"], "file": record.files[1].path},
                digest_of([record.files[1].sha256, parts]),
            )
            for record in self.evaluated
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the rows of a file with their parts."""
        parts = unit.reads["parts"]
        bounds = np.array([-(-(part << 64) // parts) for part in range(1, parts)], np.uint64)
        for batch in read_arrow(scratch_of(self.root) / unit.reads["file"]).to_batches():
            yield np.searchsorted(bounds, halves(batch["cluster"])[:, 0], side="right"), batch


@dataclass(frozen=True)
class Losers(Gathered):
    """Units are parts of clusters; what they find lies in decide's scratch folder, for `losers_of`."""

    name: ClassVar[str] = "losers"
    legs: ClassVar[tuple[type[Leg], ...]] = (Rivals,)

    @property
    def journal(self) -> Journal:
        """Return the journal beside its files."""
        return Journal(scratch_of(self.root), self.name)

    def plan(self) -> list[Unit]:
        """Return a unit for each part."""
        (rivals,) = (Rivals(self.recipe, self.root, self.runtime),)
        parts, rows = rivals.parts(), rivals.rows()
        content = digest_of([rivals.reads(), parts])
        return [Unit(f"{part:05d}", {"part": part, "rows": rows // parts}, content) for part in range(parts)]

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write the homes of the part's rows that are not the best of their clusters, in order."""
        columns = {name: rows[name].combine_chunks() for name in rows.column_names}
        numbers = (columns[name].to_numpy() for name in ("rank", "aesthetic", "pixels"))
        lost = Candidates(halves(columns["cluster"]), halves(columns["uid"]), *numbers).losers()
        path = scratch_of(self.root) / "losers" / f"{unit.name}.npy"
        with writing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.sort(columns["home"].to_numpy()[lost]))
        files = (FileRecord.of(scratch_of(self.root), path),)
        return ShardRecord(unit.name, unit.key, files, rows.num_rows, rows.num_rows)


def losers_of(folder: Path, number: int) -> Numbers:
    """Return the rows that lost of the unit of evaluate that has this number, given decide's scratch folder."""
    found = [np.empty(0, np.int64)]
    for path in sorted((folder / "losers").glob("*.npy")):
        homes = np.load(mapped(path), mmap_mode="r")
        low, high = np.searchsorted(homes, [number << 32, (number + 1) << 32])
        found.append(homes[low:high] & ((1 << 32) - 1))
    return np.concatenate(found)
