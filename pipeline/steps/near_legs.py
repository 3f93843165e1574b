"""The groupings that find near duplicates by parts: what goes where, and what meets (near.py says in which order)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.forest import NOBODY, Forest, find, in_sample, sample_bits, smallest_uids
from filters.hamming import (
    BITS,
    SAMPLE,
    Array,
    Bands,
    connecting_pairs,
    distinct,
    first_in,
    part_of,
)
from filters.survivors import halves
from manifests.files import digest_of, open_table, read_field, read_json
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.layout import SCRATCH
from manifests.store import drop, scratch_of
from manifests.tombstones import read_tombstones
from pipeline.execution.shuffle import Batches, Gathered, Leg, parts_for, table_of
from pipeline.execution.slices import Piece
from pipeline.execution.step import Unit
from pipeline.steps.near_rounds import Rounds

INTO = "near"
GROUP_ROWS = 100_000
"""Rows of a unit that reads shards of scores, at least, unless they end."""
PART_BYTES = 8_000_000
"""Bytes of rows of a part: what a part takes at 3 million rows, where there are EVEN parts, so that memory does not
grow behind that."""
RUN_BYTES = 16_000_000
"""Bytes of rows that a leg holds before it writes them: a part goes on once for each of 28 or 84 tables."""
MOST_PAIRS = 500_000
"""Pairs that are joined in the memory of one worker, 90 bytes each; more are joined in rounds on disk, at the same
cost (4 million: 14 and 17 CPU s)."""
STAMP, TABLES = "stamp.json", "tables.json"
"""Beside the slices: what the work is for, the cut into tables."""


def _schema(*names: str) -> pa.Schema:
    kinds = {"bars": pa.uint8(), "size": pa.uint32()}
    return pa.schema([(name, kinds.get(name, pa.uint64())) for name in names])


def _batch(schema: pa.Schema, *columns: Array) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in columns], schema=schema)


def columns_of(rows: pa.Table) -> list[Array]:
    """Return the columns of a table of numbers."""
    return [column.to_numpy() for column in rows.columns]


@dataclass(frozen=True)
class NearLeg(Leg):
    """A leg between two of these groupings."""

    into: ClassVar[str] = INTO
    held_bytes: ClassVar[int] = RUN_BYTES

    def is_small(self, pending: Sequence[Unit]) -> bool:
        """Tell whether there are few rows: one unit alone may be large."""
        return sum(int(unit.reads["rows"]) for unit in pending) < self.few_rows

    @cached_property
    def size(self) -> dict[str, Any]:
        """Return what the work is for, and how many pictures there are at most."""
        return read_json(self.folder / STAMP)

    def reads(self) -> str:
        """Return a digest of the scores, the settings and the tombstones."""
        return str(self.size["stamp"])

    def rows(self) -> int:
        """Return the number of pictures, at most."""
        return int(self.size["rows"])

    def parts(self) -> int:
        """Return the parts by pHash: as many for every leg that spreads by it."""
        return parts_for(self.rows(), ByHash.carried, most=PART_BYTES)

    def looked_at(self) -> int:
        """Return how many rows all units look at."""
        return self.rows()

    def begins(self) -> int:
        """Return how many units there are."""
        return self.parts()

    def plan(self) -> list[Unit]:
        """Return a unit for each part that holds rows of the leg before."""
        units, parts = self.begins(), self.parts()
        content = digest_of([self.reads(), units, parts, SAMPLE])
        rows = self.looked_at() // units
        return [Unit(f"{part:05d}", {"part": part, "parts": parts, "rows": rows}, content) for part in range(units)]

    def is_complete(self) -> bool:
        """Tell whether all of its units are done."""
        return all(self.journal.done(unit.name, unit.key) is not None for unit in self.units())

    def drop(self) -> None:
        """Drop its slices: all have read them."""
        drop(self.folder / self.name)

    @cached_property
    def removed(self) -> tuple[Array, Array]:
        """Return the pHashes of removed pictures, as if they were still there, and those of them that keep others
        out."""
        table = read_tombstones(self.root).removed_neighbours
        hashes = table["phash"].to_numpy().astype(np.uint64)
        return hashes, distinct(hashes[table["bars"].to_numpy().astype(bool)])

    def of_part(self, unit: Unit, hashes: Array) -> Array:
        """Return those of the pHashes that belong to a unit's part."""
        own: Array = hashes[part_of(hashes, self.begins()) == unit.reads["part"]]
        return own


@dataclass(frozen=True)
class NearEnd(Gathered):
    """An end of these groupings: what its units write lies beside the slices."""

    @property
    def folder(self) -> Path:
        """Return where its files lie."""
        return self.root / SCRATCH / INTO

    @property
    def journal(self) -> Journal:
        """Return the journal beside them; what it records is relative to `folder`."""
        return Journal(self.folder, self.name)

    @property
    def leg(self) -> Leg:
        """Return the last leg."""
        return self.senders()[0](self.recipe, self.root, self.runtime)

    def plan(self) -> list[Unit]:
        """Return a unit for each part of the last leg."""
        parts, rows, content = self.leg.parts(), self.leg.rows(), digest_of([self.leg.reads(), self.leg.parts()])
        return [Unit(f"{part:05d}", {"part": part, "rows": rows // parts}, content) for part in range(parts)]

    def record(self, unit: Unit, paths: Sequence[Path], rows: int, said: dict[str, Any]) -> ShardRecord:
        """Return the record of a unit that has written these files."""
        files = tuple(FileRecord(path.relative_to(self.folder).as_posix(), "", path.stat().st_size) for path in paths)
        return ShardRecord(unit.name, unit.key, files, rows, rows, read=said)


@dataclass(frozen=True)
class ByHash(NearLeg):
    """Pictures by pHash; those whose pHash is in the sample are sent to one more part too."""

    name: ClassVar[str] = "near_split"
    carried: ClassVar[pa.Schema] = _schema("phash", "high", "low")

    def plan(self) -> list[Unit]:
        """Return units of a few shards of scores each."""
        groups: list[list[ShardRecord]] = [[]]
        for record in records_of(self.root, "score"):
            groups[-1].append(record)
            if sum(one.rows_in for one in groups[-1]) >= GROUP_ROWS:
                groups.append([])
        parts, content = self.parts() + 1, digest_of([self.reads(), self.parts(), SAMPLE, GROUP_ROWS])
        return [
            Unit(
                f"{number:05d}",
                {"files": [one.files[0].path for one in group], "parts": parts, "rows": sum(o.rows_in for o in group)},
                content,
            )
            for number, group in enumerate(groups)
            if group
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the decoded pictures of some shards."""
        parts = unit.reads["parts"] - 1
        bits = sample_bits(self.rows(), SAMPLE)
        for name in unit.reads["files"]:
            with open_table(self.root / name) as file:
                for batch in file.iter_batches(columns=["uid", "phash"]):
                    batch = batch.filter(batch["phash"].is_valid())
                    hashes, uids = batch["phash"].to_numpy(), halves(batch["uid"])
                    pictures = _batch(self.carried, hashes, uids[:, 0], uids[:, 1])
                    yield part_of(hashes, parts), pictures
                    few = pictures.filter(pa.array(in_sample(hashes, bits)))
                    yield np.full(few.num_rows, parts), few


@dataclass(frozen=True)
class ByTable(NearLeg):
    """Distinct pHashes by table, and within it by the bits that must agree."""

    name: ClassVar[str] = "near_tables"
    after: ClassVar[type[Leg] | None] = ByHash
    carried: ClassVar[pa.Schema] = _schema("phash")

    @cached_property
    def bands(self) -> Bands:
        """Return the cut that the driver has chosen."""
        radius = self.recipe.dedup.radius
        return Bands(radius, (1 << BITS) - 1, tuple(read_field(self.folder / TABLES, "tables", list)))

    @property
    def parts_of_table(self) -> int:
        """Return into how many parts a table's pHashes go."""
        return parts_for(self.rows(), self.carried, even=1, most=PART_BYTES) if self.bands.tables else 1

    def parts(self) -> int:
        """Return the parts of all tables."""
        return max(1, len(self.bands.tables)) * self.parts_of_table

    def begins(self) -> int:
        """Return the parts by pHash."""
        return super().parts()

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the distinct pHashes of a part once for every table; those of removed pictures are among them."""
        own = self.of_part(unit, self.removed[0])
        hashes = distinct(np.concatenate([rows["phash"].to_numpy(), own]))
        batch = _batch(self.carried, hashes)
        each, few = self.parts_of_table, np.min_scalar_type(unit.reads["parts"])
        if not self.bands.tables:
            yield np.zeros(len(hashes), few), batch
        for table, mask in enumerate(self.bands.tables):
            yield (part_of(hashes, each, mask) + np.uint64(table * each)).astype(few), batch


@dataclass(frozen=True)
class Pairs(NearLeg):
    """Close pairs of a part of a table, each in the first table that both agree in, thinned."""

    name: ClassVar[str] = "near_pairs"
    after: ClassVar[type[Leg] | None] = ByTable
    carried: ClassVar[pa.Schema] = _schema("one", "other")

    @cached_property
    def tables(self) -> ByTable:
        """Return the leg before."""
        return ByTable(self.recipe, self.root, self.runtime)

    def begins(self) -> int:
        """Return the parts of all tables."""
        return self.tables.parts()

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the pairs by the part of the larger pHash."""
        bands, table = self.tables.bands, unit.reads["part"] // self.tables.parts_of_table
        forest = Forest()
        for one, other in connecting_pairs(rows["phash"].to_numpy(), bands, table):
            forest.add(*first_in(one, other, bands, table))
        one, other = forest.thinned()
        yield part_of(other, unit.reads["parts"]), _batch(self.carried, one, other)


@dataclass(frozen=True)
class Components(NearLeg):
    """Components of the pairs of all parts: each pHash with the smallest of its component, which goes with itself."""

    name: ClassVar[str] = "near_forest"
    after: ClassVar[type[Leg] | None] = Pairs
    whole: ClassVar[bool] = True
    carried: ClassVar[pa.Schema] = _schema("root", "phash")

    def begins(self) -> int:
        """Return one: a worker joins all of them, up to MOST_PAIRS in its memory."""
        return 1

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> Iterator[Piece]:
        """Yield roots and pHashes by the part of the pHash."""
        count = sum(batch.num_rows for batch in sent[0])
        pairs = ((batch["one"].to_numpy(), batch["other"].to_numpy()) for batch in sent[0])
        found = (
            Rounds(scratch_of(self.folder) / "rounds", count).components(pairs)
            if count > MOST_PAIRS
            else _at_once(pairs)
        )
        for one, other in found:
            yield part_of(other, unit.reads["parts"]), _batch(self.carried, one, other)


def _at_once(pairs: Iterator[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    forest = Forest()
    for one, other in pairs:
        forest.add(one, other)
    root, member = forest.thinned()
    yield root, member
    yield distinct(root), distinct(root)


@dataclass(frozen=True)
class Roots(NearLeg):
    """The smallest uid of each pHash that has a twin, by the part of its root; removed pictures that keep others out
    come as NOBODY."""

    name: ClassVar[str] = "near_roots"
    after: ClassVar[type[Leg] | None] = Components
    beside: ClassVar[type[Leg] | None] = ByHash
    carried: ClassVar[pa.Schema] = _schema("root", "phash", "high", "low", "bars", "size")

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> Iterator[Piece]:
        """Yield a part's pHashes that have twins, with the number of pictures of each."""
        root, member = columns_of(table_of(sent[0], Components))
        order = np.argsort(member)
        root, member = root[order], member[order]
        pictures, high, low = columns_of(table_of(sent[1], ByHash))
        kept = find(member, pictures) >= 0
        pictures = pictures[kept]
        hashes, high, low = smallest_uids(pictures, high[kept], low[kept])
        sizes = np.bincount(np.searchsorted(hashes, pictures), minlength=len(hashes))
        barring = self.of_part(unit, self.removed[1])
        barring = barring[find(member, barring) >= 0]
        for own, first, second, bars, size in (
            (hashes, high, low, 0, sizes),
            (barring, *(np.full(len(barring), NOBODY, np.uint64),) * 2, 1, np.zeros(len(barring))),
        ):
            of, flags = root[find(member, own)], np.full(len(own), bars, np.uint8)
            batch = _batch(self.carried, of, own, first, second, flags, size.astype(np.uint32))
            yield part_of(of, unit.reads["parts"]), batch


@dataclass(frozen=True)
class Named(NearLeg):
    """The smallest uid of each component, whether a removed picture keeps it out, and how many pictures it has, for
    each of its pHashes."""

    name: ClassVar[str] = "near_named"
    after: ClassVar[type[Leg] | None] = Roots
    carried: ClassVar[pa.Schema] = _schema("phash", "high", "low", "bars", "size")

    def looked_at(self) -> int:
        """Return how many pHashes have a twin."""
        return sum(record.rows_out for record in records_of(self.folder, Components.name))

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield a part's components."""
        root, hashes, high, low, bars, own = columns_of(rows)
        roots, first, second = smallest_uids(root, high, low)
        at = find(roots, root)
        barred = np.zeros(len(roots), np.uint8)
        barred[at[bars > 0]] = 1
        size = np.bincount(at, own, len(roots)).astype(np.uint32)
        batch = _batch(self.carried, hashes, first[at], second[at], barred[at], size[at])
        yield part_of(hashes, unit.reads["parts"]), batch


@dataclass(frozen=True)
class ByUid(NearLeg):
    """Pictures with their clusters by ranges of uids."""

    name: ClassVar[str] = "near_labels"
    after: ClassVar[type[Leg] | None] = Named
    beside: ClassVar[type[Leg] | None] = ByHash
    carried: ClassVar[pa.Schema] = _schema("high", "low", "phash", "cluster_high", "cluster_low", "bars", "size")

    def parts(self) -> int:
        """Return the ranges of uids."""
        return parts_for(self.rows(), self.carried, most=PART_BYTES)

    def begins(self) -> int:
        """Return the parts by pHash."""
        return super().parts()

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> Iterator[Piece]:
        """Yield a part's pictures: those of one pHash have its smallest uid, or the smallest of its component."""
        hashes, high, low = columns_of(table_of(sent[1], ByHash))
        known, first, second = smallest_uids(hashes, high, low)
        of = np.searchsorted(known, hashes)
        size = np.bincount(of, minlength=len(known)).astype(np.uint32)
        bars = np.isin(known, self.of_part(unit, self.removed[1])).astype(np.uint8)
        named, *better = columns_of(table_of(sent[0], Named))
        at = find(known, named)
        there = at >= 0
        own: tuple[Array, ...] = (first, second, bars, size)
        for column, one in zip(own, better, strict=True):
            column[at[there]] = one[there]
        batch = _batch(self.carried, high, low, hashes, first[of], second[of], bars[of], size[of])
        yield by_uid(high, unit.reads["parts"]), batch


def by_uid(high: Array, parts: int) -> Array:
    """Return the range of uids that each of these, of which this is the first half, is in."""
    part: Array = (high >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    return part
