"""filter / dedup over more pictures than one process should hold, last part: what was found of each range of uids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from filters.survivors import halves
from manifests.files import digest_of
from manifests.journal import ShardRecord
from manifests.tables import CLUSTERS
from manifests.tombstones import read_tombstones
from pipeline.execution.shuffle import Batches, Leg, table_of
from pipeline.execution.slices import Piece
from pipeline.execution.step import Do, Unit
from pipeline.steps.arrow_files import write_arrow
from pipeline.steps.labels import binary
from pipeline.steps.listed import Embedded, RowLists, Shard, shards_of
from pipeline.steps.marks import FOUND, Marker, Part, read_hash_lists
from pipeline.steps.near_legs import (
    GROUP_ROWS,
    ByHash,
    ByTable,
    ByUid,
    Components,
    Named,
    NearEnd,
    NearLeg,
    Pairs,
    Roots,
    by_uid,
    columns_of,
)
from pipeline.steps.sharding import runs

LISTS = "lists.arrow"
"""Beside the slices: the pHashes that pictures are held against."""
ROW_COST = 100
"""What looking at a shard costs beside its pictures, in rows."""


@dataclass(frozen=True)
class ByList(NearLeg):
    """The rows that lists and evaluation sets name by more than a pHash, by ranges of uids."""

    name: ClassVar[str] = "near_listed"
    carried: ClassVar[pa.Schema] = FOUND

    @cached_property
    def lists(self) -> RowLists:
        """Return what rows are held against."""
        return RowLists(self.recipe, self.root, Embedded.read(self.folder))

    def parts(self) -> int:
        """Return the ranges of uids."""
        return ByUid(self.recipe, self.root, self.runtime).parts()

    def plan(self) -> list[Unit]:
        """Return units of some shards each, none where there is nothing to look for."""
        groups = runs(shards_of(self.root) if self.lists else (), lambda shard: shard.rows + ROW_COST, GROUP_ROWS)
        content = digest_of([self.reads(), self.parts(), GROUP_ROWS])
        return [
            Unit(
                f"{number:05d}",
                {"shards": group, "parts": self.parts(), "rows": sum(shard.rows for shard in group)},
                content,
            )
            for number, group in enumerate(groups)
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield what is found in some shards."""
        for shard in unit.reads["shards"]:
            for found in self.lists.found_in(Shard(*shard)):
                for batch in found.combine_chunks().to_batches():
                    yield by_uid(halves(batch["uid"])[:, 0], unit.reads["parts"]), batch


LEGS: tuple[type[NearLeg], ...] = (ByHash, ByTable, Pairs, Components, Roots, Named, ByUid)
DROPPED: dict[type[Leg], type[NearLeg]] = {Pairs: ByTable, Components: Pairs, Named: Roots}
"""Legs behind which the slices of an earlier one are not read any more."""


@dataclass(frozen=True)
class Marked(NearEnd):
    """Pictures with their clusters, marks and matches, of each range of uids."""

    name: ClassVar[str] = "near_marked"
    legs: ClassVar[tuple[type[Leg], ...]] = (ByList, *LEGS)
    ends: ClassVar[tuple[type[Leg], ...]] = (ByUid, ByList)

    @cached_property
    def marker(self) -> Marker:
        """Return what holds pictures against lists of pHashes."""
        drops = self.recipe.decontaminate.action == "drop"
        return Marker(read_hash_lists(self.folder / LISTS), read_tombstones(self.root).phashes, drops)

    def make_legs(self, do: Do) -> None:
        """Make the legs behind the last one that is done, and drop slices when they are read."""
        own = (self.recipe, self.root, self.runtime)
        ByList(*own).make(do)
        legs = [leg(*own) for leg in LEGS]
        last = max((number for number, leg in enumerate(legs) if leg.is_complete()), default=-1)
        for leg in legs[last + 1 :]:
            leg.make(do)
            if before := DROPPED.get(type(leg)):
                before(*own).drop()

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> ShardRecord:
        """Write the three tables of a range of uids; its record says how many clusters of two and more have their
        smallest uid there, and how many pictures the largest has."""
        high, low, hashes, first, second, bars, size = columns_of(table_of(sent[0], ByUid))
        order = np.lexsort((low, high))
        uids, clusters = (np.stack(pair, axis=1)[order] for pair in ((high, low), (first, second)))
        part = Part(uids, hashes[order], clusters, bars[order] > 0)
        found = self.marker.marked(part, table_of(sent[1], ByList))
        tables = (pa.table([binary(uids), binary(clusters)], schema=CLUSTERS), *found)
        paths = [self.folder / self.name / f"{unit.name}.{number}.arrow" for number in range(len(tables))]
        for path, table in zip(paths, tables, strict=True):
            write_arrow(path, table)
        sizes = size[(high == first) & (low == second) & (size > 1)]
        said = {"clusters": len(sizes), "largest": int(sizes.max(initial=0))}
        return self.record(unit, paths, len(uids), said)
