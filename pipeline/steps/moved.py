"""pretokenize / pack, before its shards: encoded rows move to their packed shards, once.

The packed order is that of hashes, so that a packed shard takes rows from nearly every encoded table: were each to look
for its own, every table would be opened as often as there are packed shards. Rows are spread over the shards instead,
some tables at a time, and a shard reads its slice of the few files that come of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import FormatError, digest_of, open_table, read_table, write_bytes, write_table
from manifests.journal import ShardRecord, by_kind, records_of
from manifests.layout import SCRATCH
from manifests.tables import ENCODED
from manifests.uid import uid_hash
from pipeline.execution.delivered import Delivered, Rows
from pipeline.execution.shuffle import Leg, sweep_scratch
from pipeline.execution.slices import Piece
from pipeline.execution.step import Do, Unit
from pipeline.steps.sharding import runs

INTO = "pack"
ENDS = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("tier", pa.string()),
        ("first", pa.uint64()),
        ("last", pa.uint64()),
        ("last_uid", pa.binary(16)),
    ]
)
"""`.shuffle/pack/parts.parquet`: the packed shards that rows move to, in order: the key that each will be done under,
the draws of its first and last sample, and who the last one is; null where all of its samples are removed."""
PARTS, WHOLE = "parts.parquet", "whole"
FEW_SHARDS = 2
"""Shards of a tier that take their rows from the encoded tables themselves: up to here no table is read oftener."""
UNIT_BYTES, MOST_UNITS = 256_000_000, 1000
"""Bytes of tables whose rows move into one file of slices, and how many such files a tier has: each shard opens all."""
AT_ONCE = 8192
"""Rows of a table that are looked at together."""
Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Ends:
    """Where shards of a tier end in the packed order: the part that each has in the slices, draws of its first and last
    sample (S,), and the last one's uid."""

    parts: Numbers
    first: Numbers
    last: Numbers
    last_uid: list[bytes]

    @classmethod
    def of(cls, ends: pa.Table, tier: str) -> Self:
        """Take those of a tier from rows like ENDS."""
        own = pc.and_(pc.equal(ends["tier"], tier), pc.is_valid(ends["last_uid"]))
        rows = ends.filter(own)
        parts = np.flatnonzero(own.to_numpy())
        return cls(parts, rows["first"].to_numpy(), rows["last"].to_numpy(), rows["last_uid"].to_pylist())

    def parts_of(self, draws: Numbers, uids: pa.Array) -> Numbers:
        """Return the part of each row, -1 for rows that stand in none of these shards: (N,)."""
        place = np.searchsorted(self.last, draws, "left")
        there = len(self.last) - 1
        if there < 0:
            return np.full(len(draws), -1, np.int64)
        for row in np.flatnonzero(self.last[np.minimum(place, there)] == draws).tolist():  # at most a row a shard
            uid = uids[row].as_py()
            while place[row] <= there and (self.last[place[row]], self.last_uid[place[row]]) < (draws[row], uid):
                place[row] += 1
        held = np.minimum(place, there)
        return np.where((place <= there) & (self.first[held] <= draws), self.parts[held], -1)


@dataclass(frozen=True)
class MovedCodes(Leg):
    """What packed samples take from their encoded rows. Units are runs of a tier's tables; the parts are packed
    shards."""

    name: ClassVar[str] = "moved_codes"
    into: ClassVar[str] = INTO
    carried: ClassVar[pa.Schema] = pa.schema(
        [ENCODED.field(name) for name in ("uid", "sha256", "size", "n_crops", "crops", "codes")]
    )

    @cached_property
    def ends(self) -> pa.Table:
        """Return the shards that rows move to."""
        return read_table(self.folder / PARTS)

    def plan(self) -> list[Unit]:
        """Return a unit for some of a tier's tables, in order: UNIT_BYTES of them, more where that were MOST_UNITS."""
        to = digest_of([self.ends["shard"].to_pylist(), self.ends["key"].to_pylist()])
        of_tier = by_kind(records_of(self.root, "encode"))
        units = []
        for tier in self.ends["tier"].unique().to_pylist():
            records = of_tier.get(tier, [])
            size = max(UNIT_BYTES, sum(map(_bytes, records)) // MOST_UNITS)
            for number, some in enumerate(runs(records, _bytes, size)):
                files = [record.files[0].path for record in some]
                rows = sum(record.rows_in for record in some)
                reads = {"parts": self.ends.num_rows, "tier": tier, "files": files, "rows": rows}
                units.append(Unit(f"{tier}-{number:05d}", reads, digest_of([to, [one.content for one in some]])))
        return units

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield the rows without a reason that stand in the packed shards, with these."""
        ends = Ends.of(self.ends, unit.reads["tier"])
        for path in unit.reads["files"]:
            with open_table(self.root / path) as file:
                for batch in file.iter_batches(AT_ONCE, columns=[*self.carried.names, "draw", "reason"]):
                    part = ends.parts_of(batch["draw"].to_numpy(), batch["uid"])
                    part[batch["reason"].is_valid().to_numpy(zero_copy_only=False)] = -1
                    taken = batch.filter(pa.array(part >= 0))
                    columns = [taken[field.name].cast(field.type) for field in self.carried]
                    yield part[part >= 0], pa.RecordBatch.from_arrays(columns, schema=self.carried)


@dataclass(frozen=True)
class PackedRows(Delivered):
    """These rows, for the workers that pack them."""

    name: ClassVar[str] = "packed_rows"
    legs: ClassVar[tuple[type[Leg], ...]] = (MovedCodes,)
    key: ClassVar[tuple[str, ...]] = ("uid",)


def bring(leg: MovedCodes, pending: Sequence[Unit], do: Do, grouped: bool = False) -> None:
    """Move rows to these packed shards, where a tier has more than FEW_SHARDS of them; what was moved for the same ones
    before stays."""
    shards = Counter(unit.reads["tier"] for unit in pending)
    many = [unit for unit in pending if shards[unit.reads["tier"]] > FEW_SHARDS]
    if not many:
        return
    known = keys_of(leg.folder)
    if any(known.get(unit.name) != unit.key for unit in many):
        sweep_scratch(leg.root, INTO)
        ends = [_end(leg.root, unit, leg.recipe.pretokenize.seed) for unit in many]
        write_table(leg.folder / PARTS, pa.Table.from_pylist(ends, schema=ENDS))
    PackedRows(leg.recipe, leg.root, leg.runtime).make(do, grouped)
    write_bytes(leg.folder / WHOLE, b"")


def _end(root: Path, unit: Unit, seed: int) -> dict[str, Any]:
    """Return a packed shard's row of ENDS."""
    uids = read_table(root / unit.reads["plan"], ["uid"])["uid"]
    row = {"shard": unit.name, "key": unit.key, "tier": unit.reads["tier"]}
    if not len(uids):
        return row
    first, last = uids[0].as_py(), uids[-1].as_py()
    return {**row, "first": uid_hash(first, seed), "last": uid_hash(last, seed), "last_uid": last}


def _bytes(record: ShardRecord) -> int:
    return record.files[0].bytes


def keys_of(folder: Path) -> dict[str, str]:
    """Return packed shard -> the key it will be done under, of those whose rows are moved, or on their way."""
    try:
        ends = read_table(folder / PARTS, ["shard", "key"])
    except (OSError, FormatError):
        return {}
    return dict(zip(ends["shard"].to_pylist(), ends["key"].to_pylist(), strict=True))


@dataclass(frozen=True)
class MovedRows:
    """The rows that were moved to packed shards: none where not all of them have been."""

    rows: Rows
    parts: Mapping[tuple[str, str], int]
    """(packed shard, key that it will be done under) -> its part."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """Find what lies in the run at `root`."""
        folder = root / SCRATCH / INTO
        keys = keys_of(folder) if (folder / WHOLE).exists() else {}
        return cls(Rows.of(PackedRows, root), {item: part for part, item in enumerate(keys.items())})

    def of_unit(self, unit: Unit) -> pa.Table | None:
        """Return the rows of a packed shard in any order, None where they were not moved for the unit as it is."""
        part = self.parts.get((unit.name, unit.key))
        return None if part is None else self.rows.of_part(part)
