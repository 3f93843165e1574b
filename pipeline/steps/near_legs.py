"""The groupings that find near duplicates by parts: what goes where, and what meets (near.py says in which order)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.forest import NOBODY, Forest, find, in_sample, sample_bits, smallest_uids
from filters.hamming import (
    BITS,
    MOVE_NS,
    SAMPLE,
    Array,
    Bands,
    choose_bands,
    connecting_pairs,
    distinct,
    first_in,
    part_of,
)
from filters.survivors import halves
from manifests.files import digest_of, open_table, read_field, read_json
from manifests.journal import ShardRecord, records_of
from manifests.tombstones import read_tombstones
from pipeline.execution.shuffle import FEW_ROWS, Leg, Piece, Slices, parts_for
from pipeline.execution.step import Unit
from pipeline.steps.frequent import SPELLED, of_shard, shards
from pipeline.steps.near_rounds import Rounds

INTO = "near"
GROUP_ROWS = 100_000
"""Rows of a unit that reads shards of scores, at least, unless they end."""
MOST_PAIRS = 4_000_000
"""Pairs that are joined in the memory of one worker, 90 bytes each; more are joined in rounds on disk, at the same
cost (4 million: 14 and 17 CPU s)."""
STAMP, TABLES, ASKED = "stamp.json", "tables.json", "asked.npy"
"""Beside the slices: what the work is for, the cut into tables, the pHashes whose URLs and texts are counted."""


def _schema(*names: str) -> pa.Schema:
    return pa.schema([(name, pa.uint8() if name == "bars" else pa.uint64()) for name in names])


def _batch(schema: pa.Schema, *columns: Array) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in columns], schema=schema)


def columns_of(rows: pa.Table) -> list[Array]:
    """Return the columns of a table of numbers."""
    return [column.to_numpy() for column in rows.columns]


@dataclass(frozen=True)
class NearLeg(Leg):
    """A leg between two of these groupings."""

    into: ClassVar[str] = INTO
    few_rows: ClassVar[int] = 3_000_000

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
        return parts_for(self.rows(), ByHash.carried)

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


def choose_tables(root: Path, rows: int, parts: int, radius: int) -> Bands:
    """Return the cut into tables: it follows from the set of pHashes and the number of rows alone."""
    sample = distinct(Slices.of(ByHash, root).of_part(parts)["phash"].to_numpy())
    return choose_bands(sample, radius, count=max(1, len(sample) << sample_bits(rows, SAMPLE)), table_ns=MOVE_NS)


@dataclass(frozen=True)
class Spelled(NearLeg):
    """What stands with the pictures of the pHashes that are asked for, by pHash."""

    name: ClassVar[str] = "near_frequent"
    carried: ClassVar[pa.Schema] = SPELLED

    def parts(self) -> int:
        """Return the parts by pHash."""
        return parts_for(self.rows(), SPELLED)

    @cached_property
    def asked(self) -> Array:
        """Return the pHashes that are asked for, in order."""
        asked: Array = np.load(self.folder / ASKED)
        return asked

    def plan(self) -> list[Unit]:
        """Return units of a few shards each."""
        places = {record.files[0].path: plan for record, plan in shards(self.root)}
        parts, content = self.parts(), digest_of([self.reads(), self.parts(), GROUP_ROWS, self.asked.tolist()])
        units = []
        for unit in ByHash(self.recipe, self.root, self.runtime).plan():
            files = [[name, places[name].relative_to(self.root).as_posix()] for name in unit.reads["files"]]
            units.append(Unit(unit.name, {**unit.reads, "files": files, "parts": parts}, content))
        return units

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the pictures of some shards that have one of them."""
        for scores, plan in unit.reads["files"]:
            for batch in of_shard(self.root, scores, self.root / plan, self.asked):
                yield part_of(batch["phash"].to_numpy(), unit.reads["parts"]), batch


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
        return parts_for(self.rows(), self.carried) if self.bands.tables else 1

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
    few_rows: ClassVar[int] = FEW_ROWS
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
    carried: ClassVar[pa.Schema] = _schema("root", "phash")

    def begins(self) -> int:
        """Return one: a worker joins all of them, up to MOST_PAIRS in its memory."""
        return 1

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield roots and pHashes by the part of the pHash."""
        count = sum(record.rows_out for record in records_of(self.folder, Pairs.name))
        slices, parts = Slices.of(Pairs, self.root), unit.reads["parts"]
        pairs = ((one, other) for part in range(parts) for one, other in [columns_of(slices.of_part(part))])
        found = Rounds(self.folder / "rounds", count).components(pairs) if count > MOST_PAIRS else _at_once(pairs)
        for one, other in found:
            yield part_of(other, parts), _batch(self.carried, one, other)


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
    carried: ClassVar[pa.Schema] = _schema("root", "phash", "high", "low", "bars")

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield a part's pHashes that have twins."""
        root, member = columns_of(rows)
        order = np.argsort(member)
        root, member = root[order], member[order]
        pictures = Slices.of(ByHash, self.root).of_part(unit.reads["part"])
        hashes, high, low = columns_of(pictures)
        kept = find(member, hashes) >= 0
        hashes, high, low = smallest_uids(hashes[kept], high[kept], low[kept])
        barring = self.of_part(unit, self.removed[1])
        barring = barring[find(member, barring) >= 0]
        for own, first, second, bars in (
            (hashes, high, low, 0),
            (barring, *(np.full(len(barring), NOBODY, np.uint64),) * 2, 1),
        ):
            of = root[find(member, own)]
            batch = _batch(self.carried, of, own, first, second, np.full(len(own), bars, np.uint8))
            yield part_of(of, unit.reads["parts"]), batch


@dataclass(frozen=True)
class Named(NearLeg):
    """The smallest uid of each component, and whether a removed picture keeps it out, for each of its pHashes."""

    name: ClassVar[str] = "near_named"
    after: ClassVar[type[Leg] | None] = Roots
    carried: ClassVar[pa.Schema] = _schema("phash", "high", "low", "bars")

    def looked_at(self) -> int:
        """Return how many pHashes have a twin."""
        return sum(record.rows_out for record in records_of(self.folder, Components.name))

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield a part's components."""
        root, hashes, high, low, bars = columns_of(rows)
        roots, first, second = smallest_uids(root, high, low)
        at = find(roots, root)
        barred = np.zeros(len(roots), np.uint8)
        barred[at[bars > 0]] = 1
        batch = _batch(self.carried, hashes, first[at], second[at], barred[at])
        yield part_of(hashes, unit.reads["parts"]), batch


@dataclass(frozen=True)
class ByUid(NearLeg):
    """Pictures with their clusters by ranges of uids."""

    name: ClassVar[str] = "near_labels"
    after: ClassVar[type[Leg] | None] = Named
    carried: ClassVar[pa.Schema] = _schema("high", "low", "phash", "cluster_high", "cluster_low", "bars")

    def parts(self) -> int:
        """Return the ranges of uids."""
        return parts_for(self.rows(), self.carried)

    def begins(self) -> int:
        """Return the parts by pHash."""
        return super().parts()

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield a part's pictures: those of one pHash have its smallest uid, or the smallest of its component."""
        hashes, high, low = columns_of(Slices.of(ByHash, self.root).of_part(unit.reads["part"]))
        known, first, second = smallest_uids(hashes, high, low)
        bars = np.isin(known, self.of_part(unit, self.removed[1])).astype(np.uint8)
        named, named_first, named_second, named_bars = columns_of(rows)
        at = find(known, named)
        there = at >= 0
        at = at[there]
        first[at], second[at], bars[at] = named_first[there], named_second[there], named_bars[there]
        at = np.searchsorted(known, hashes)
        part = (high >> np.uint64(32)) * np.uint64(unit.reads["parts"]) >> np.uint64(32)
        yield part, _batch(self.carried, high, low, hashes, first[at], second[at], bars[at])
