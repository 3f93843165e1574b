"""filter / decide, before its halves: which rows of dedup's table have twins.

The table is in order of uid, and a run of its row groups is a unit; a row that names another as its cluster meets it in
the run where that one stands, or would stand.

    Namers   runs -> runs of the clusters               rows that name another
    Paired   -> runs of the uids                        rows whose cluster two rows and more are in
    Twins                                               those of each run, in order
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from filters.survivors import halves
from filters.verdicts import Numbers
from manifests.files import FormatError, digest_of, open_table
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.tombstones import tombstones_sha256
from pipeline.execution.shuffle import Batches, Gathered, Leg
from pipeline.execution.slices import Piece
from pipeline.execution.step import Unit
from pipeline.steps.arrow_files import read_arrow, write_arrow
from pipeline.steps.evaluate import scratch_of
from pipeline.steps.labels import CLUSTERS, Lookup, LookupWriter

RUN_GROUPS = 4
"""Row groups of a unit: 65,536 rows each, which take some 25 MB with all that is made of them."""
HELD_ROWS = 1_000_000
"""Clusters that are gathered before they are counted."""
LINK = pa.schema([(name, pa.uint64()) for name in ("high", "low", "cluster_high", "cluster_low")])
"""Halves of a row's uid and of its cluster."""


@dataclass(frozen=True)
class Runs:
    """Runs of the row groups of dedup's tables, each group a path and its number, and the first uid of each: (R, 2)."""

    groups: list[list[tuple[Path, int]]]
    first: Numbers
    rows: int

    @classmethod
    def of(cls, root: Path, size: int) -> "Runs":
        """Find runs of `size` groups. Raises FormatError, OSError."""
        found: list[tuple[Path, int]] = []
        first: list[bytes] = []
        rows = 0
        for path, _ in tables_of(root):
            with open_table(path) as file:
                metadata = file.metadata
            held = [number for number in range(metadata.num_row_groups) if metadata.row_group(number).num_rows]
            found += [(path, number) for number in held]
            first += [metadata.row_group(number).column(0).statistics.min for number in held]
            rows += metadata.num_rows
        groups = [found[start : start + size] for start in range(0, len(found), size)]
        return cls(groups or [[]], halves(pa.array(first[::size] or [bytes(16)], pa.binary(16))), rows)

    def parts_of(self, uids: Numbers) -> Numbers:
        """Return the run that each of these halves, (n, 2), stands in, or would stand in."""
        first = self.first
        part = np.searchsorted(first[:, 0], uids[:, 0], side="right") - 1
        while np.any(before := (part >= 0) & (first[part, 0] == uids[:, 0]) & (uids[:, 1] < first[part, 1])):
            part[before] -= 1
        return np.maximum(part, 0)

    def read(self, part: int) -> tuple[Numbers, Numbers]:
        """Return the uids and clusters of a run, as halves. Raises FormatError where they are not in order."""
        columns = [[np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]]
        for path, number in self.groups[part]:
            with open_table(path) as file:
                group = file.read_row_group(number, columns=["uid", "cluster"], use_threads=False)
            for column, name in zip(columns, ("uid", "cluster"), strict=True):
                column.extend(halves(chunk) for chunk in group[name].chunks)
        uids, clusters = (np.concatenate(column) for column in columns)
        around = np.concatenate([uids, self.first[part + 1 : part + 2]])
        if not _in_order(around) or np.any(uids[:1] != self.first[part : part + 1][: len(uids)]):
            raise FormatError(f"{self.groups[part][0][0].parent}: the clusters are not in order of uid")
        return uids, clusters


def tables_of(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield dedup's tables of clusters, each with its sha256."""
    for file in (file for record in records_of(root, "dedup") for file in record.files):
        path = root / file.path
        if path.parent == root / "dedup" and path.suffix == ".parquet":
            yield path, file.sha256


def _in_order(uids: Numbers) -> bool:
    one, two = uids[:-1], uids[1:]
    return bool(np.all((one[:, 0] < two[:, 0]) | ((one[:, 0] == two[:, 0]) & (one[:, 1] < two[:, 1]))))


@dataclass(frozen=True)
class RunLeg(Leg):
    """A leg whose parts are runs."""

    into: ClassVar[str] = "twins"
    carried: ClassVar[pa.Schema] = LINK

    @cached_property
    def runs(self) -> Runs:
        """Return the runs."""
        return Runs.of(self.root, RUN_GROUPS)

    def reads(self) -> str:
        """Return a digest of the tables."""
        return digest_of([[sha256 for _, sha256 in tables_of(self.root)], RUN_GROUPS, tombstones_sha256(self.root)])

    def rows(self) -> int:
        """Return how many rows the tables have."""
        return self.runs.rows

    def parts(self) -> int:
        """Return how many runs there are."""
        return len(self.runs.groups)


@dataclass(frozen=True)
class Namers(RunLeg):
    """The rows that name another as their cluster, by the run of that one."""

    name: ClassVar[str] = "twins_namers"

    def plan(self) -> list[Unit]:
        """Return a unit for each run."""
        parts, rows, content = self.parts(), self.rows(), self.reads()
        return [
            Unit(f"{part:05d}", {"part": part, "parts": parts, "rows": rows // parts}, content) for part in range(parts)
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield those of a run."""
        uids, clusters = self.runs.read(unit.reads["part"])
        names = np.any(uids != clusters, axis=1)
        yield self.runs.parts_of(clusters[names]), _links(uids[names], clusters[names])


@dataclass(frozen=True)
class Paired(RunLeg):
    """The rows whose cluster two rows and more are in, by the run that they stand in."""

    name: ClassVar[str] = "twins_paired"
    after: ClassVar[type[Leg] | None] = Namers

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> Iterator[Piece]:
        """Yield the rows of the clusters that are named in a run."""
        part = unit.reads["part"]
        named, counts = _named(sent[0])
        lookup = Lookup(named[:, 0].copy(), named[:, 1].copy(), named)
        uids, clusters = self.runs.read(part)
        own = uids[np.all(uids == clusters, axis=1)]
        place = lookup.find(own)
        counts[place[place >= 0]] += 1
        several = np.append(counts > 1, False)  # for place -1: not named
        own = own[several[place]]
        yield np.full(len(own), part), _links(own, own)
        for batch in sent[0]:
            uids, clusters = _halves(batch)
            twin = several[lookup.find(clusters)]
            yield self.runs.parts_of(uids[twin]), _links(uids[twin], clusters[twin])


def _links(uids: Numbers, clusters: Numbers) -> pa.RecordBatch:
    columns = [pa.array(np.ascontiguousarray(column)) for column in (*uids.T, *clusters.T)]
    return pa.RecordBatch.from_arrays(columns, schema=LINK)


def _halves(links: pa.RecordBatch | pa.Table) -> tuple[Numbers, Numbers]:
    """Return uids and clusters."""
    high, low, cluster_high, cluster_low = (column.to_numpy() for column in links.columns)
    return np.stack([high, low], axis=1), np.stack([cluster_high, cluster_low], axis=1)


def _named(links: Batches) -> tuple[Numbers, Numbers]:
    """Return the clusters that are named, in order, and how many rows name each; HELD_ROWS more are held."""
    named, counts = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
    held = 0
    for batch in links:
        named.append(_halves(batch)[1])
        counts.append(np.ones(batch.num_rows, np.int64))
        held += batch.num_rows
        if held > HELD_ROWS:
            one, other = _summed(np.concatenate(named), np.concatenate(counts))
            named, counts, held = [one], [other], 0
    return _summed(np.concatenate(named), np.concatenate(counts))


def _summed(named: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
    if not len(named):
        return named, counts
    order = np.lexsort((named[:, 1], named[:, 0]))
    named, counts = named[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], np.any(named[1:] != named[:-1], axis=1)]))
    return named[starts], np.add.reduceat(counts, starts)


@dataclass(frozen=True)
class Twins(Gathered):
    """The rows of each run that have twins, in order; what is found lies in decide's scratch folder, for
    `write_clusters`."""

    name: ClassVar[str] = "twins"
    legs: ClassVar[tuple[type[Leg], ...]] = (Namers, Paired)

    @property
    def journal(self) -> Journal:
        """Return the journal beside its files."""
        return Journal(scratch_of(self.root), self.name)

    def plan(self) -> list[Unit]:
        """Return a unit for each run."""
        return Namers(self.recipe, self.root, self.runtime).plan()

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write the rows of a run."""
        path = scratch_of(self.root) / self.name / f"{unit.name}.arrow"
        write_arrow(path, rows.sort_by([("high", "ascending"), ("low", "ascending")]))
        files = (FileRecord.of(scratch_of(self.root), path),)
        return ShardRecord(unit.name, unit.key, files, rows.num_rows, rows.num_rows)


def write_clusters(folder: Path) -> None:
    """Write uid -> cluster of the rows that have twins, from what Twins left in decide's scratch folder, for Labels."""
    writer = LookupWriter(folder, CLUSTERS)
    for record in records_of(folder, Twins.name):
        writer.add(*_halves(read_arrow(folder / record.files[0].path)))
    writer.close()
