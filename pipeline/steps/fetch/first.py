"""Say of each shard of the select ledger which of its survivors are the first of their uid: exact duplicates go."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import digest_of, open_table, write_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.tombstones import read_tombstones
from pipeline.execution.shuffle import Gathered, Leg, parts_for
from pipeline.execution.slices import Piece
from pipeline.execution.step import Unit

Numbers = np.ndarray[Any, np.dtype[np.uint64]]
FIRST = pa.schema(
    [
        pa.field("row", pa.uint32(), metadata={"says": "number of the row in the shard of ledger/select"}),
        pa.field("gone", pa.bool_(), metadata={"says": "a removed row, which leaves its place empty"}),
    ]
)
"""`ledger/first/N.parquet`: the survivors of shard N of the select ledger that are the first row of their uid, and what
was removed from among them, in order."""
LITTLE = 2_000_000
"""Rows that take the driver less than half a second: 0.12 to 0.18 µs each, measured."""
ROW_BITS = np.uint64(32)
"""A row's place is the number of its shard, in order of names, and below these bits its own."""


@dataclass(frozen=True)
class ByUid(Leg):
    """Survivors by uid: of those with one uid in a batch only the first is sent."""

    name: ClassVar[str] = "first_split"
    few_rows: ClassVar[int] = LITTLE
    into: ClassVar[str] = "first"
    carried: ClassVar[pa.Schema] = pa.schema({"high": pa.uint64(), "low": pa.uint64(), "place": pa.uint64()})

    def rows(self) -> int:
        """Return the number of survivors."""
        return sum(record.rows_out for record in records_of(self.root, "select"))

    def parts(self) -> int:
        """Return one part for every SLICE_BYTES of survivors."""
        return parts_for(self.rows(), self.carried)

    def plan(self) -> list[Unit]:
        """Return a unit for each shard of the select ledger."""
        parts = self.parts()
        return [
            Unit(
                record.shard,
                {"shard": number, "ledger": record.files[0].path, "parts": parts, "rows": record.rows_in},
                digest_of([number, record.content, parts]),
            )
            for number, record in enumerate(records_of(self.root, "select"))
        ]

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Send each uid to the part that its first half falls into."""
        begin, parts = 0, np.uint64(unit.reads["parts"])
        with open_table(self.root / unit.reads["ledger"]) as file:
            for batch in file.iter_batches(columns=["uid", "reason"]):
                alive = np.flatnonzero(batch["reason"].is_null().to_numpy(zero_copy_only=False))
                high, low = (half[alive] for half in halves(batch["uid"]))
                place = (np.uint64(unit.reads["shard"]) << ROW_BITS) + (alive + begin).astype(np.uint64)
                begin += batch.num_rows
                first = first_of_each(high, low, place)
                high, low, place = high[first], low[first], place[first]
                yield (high >> ROW_BITS) * parts >> ROW_BITS, pa.record_batch([high, low, place], schema=self.carried)


@dataclass(frozen=True)
class FirstOfUid(Leg):
    """The first row of each uid, sent back to its shard."""

    name: ClassVar[str] = "first_reduce"
    few_rows: ClassVar[int] = LITTLE
    into: ClassVar[str] = "first"
    after: ClassVar[type[Leg] | None] = ByUid
    carried: ClassVar[pa.Schema] = pa.schema({"row": pa.uint32()})

    def reads(self) -> str:
        """Return a digest of the select ledger."""
        return upstream(self.root, "select")

    def rows(self) -> int:
        """Return the number of survivors."""
        return sum(record.rows_out for record in records_of(self.root, "select"))

    def parts(self) -> int:
        """Return the number of shards of the select ledger."""
        return len(records_of(self.root, "select"))

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Keep the first row of each uid, in the order of the input."""
        high, low, place = (rows[name].to_numpy() for name in ("high", "low", "place"))
        kept = place[first_of_each(high, low, place)]
        row = (kept & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        yield (kept >> ROW_BITS).astype(np.int64), pa.record_batch([row], schema=self.carried)


@dataclass(frozen=True)
class First(Gathered):
    """Units are the shards of the select ledger."""

    name: ClassVar[str] = "first"
    few_rows: ClassVar[int] = LITTLE
    legs: ClassVar[tuple[type[Leg], ...]] = (ByUid, FirstOfUid)

    def plan(self) -> list[Unit]:
        """Return a unit for each shard of the select ledger: any other may hold its rows' uids too."""
        gaps = [list(row.values()) for row in self.gaps.to_pylist()]
        content = digest_of([upstream(self.root, "select"), sorted(gaps)])
        return [
            Unit(record.shard, {"part": part, "ledger": record.files[0].path, "rows": record.rows_in}, content)
            for part, record in enumerate(records_of(self.root, "select"))
        ]

    @cached_property
    def gaps(self) -> pa.Table:
        """Return source and source_row of removed rows that leave their places empty: the others stay in theirs."""
        return read_tombstones(self.root).fetched

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write `ledger/first/NAME.parquet`. The record's `read` says which file of the input the rows are from."""
        source, survivors = self._survivors(self.root / unit.reads["ledger"])
        first = np.sort(rows["row"].to_numpy())
        gone = self._gone(self.root / unit.reads["ledger"]) if self.gaps.num_rows else first[:0]
        row = np.concatenate((first, gone))
        order = np.argsort(row, kind="stable")
        is_gone = np.arange(len(row)) >= len(first)
        path = self.root / "ledger" / "first" / f"{unit.name}.parquet"
        write_table(path, pa.table([row[order], is_gone[order]], schema=FIRST))
        twins = survivors - len(first)
        return ShardRecord(
            unit.name,
            unit.key,
            (FileRecord.of(self.root, path),),
            survivors + len(gone),
            len(row),
            {"exact_duplicate": twins} if twins else {},
            {} if source is None else {"source": source},
        )

    def _survivors(self, ledger: Path) -> tuple[str | None, int]:
        """Return a shard's file of the input, None where it has no rows, and the number of its survivors."""
        with open_table(ledger) as file:
            count = sum(batch["reason"].null_count for batch in file.iter_batches(columns=["reason"]))
            head = next(file.iter_batches(batch_size=1, columns=["source"]), None)
            return None if head is None or not head.num_rows else head["source"][0].as_py(), count

    def _gone(self, ledger: Path) -> "np.ndarray[Any, np.dtype[np.uint32]]":
        """Return the rows of a shard that leave their places empty."""
        found, begin = [np.array([], np.uint32)], 0
        with open_table(ledger) as file:
            for batch in file.iter_batches(columns=["source", "source_row"]):
                named = self.gaps.filter(pc.is_in(self.gaps["source"], value_set=batch["source"].unique()))
                hit = pc.is_in(batch["source_row"], value_set=named["source_row"].combine_chunks())
                found.append((np.flatnonzero(hit.to_numpy(zero_copy_only=False)) + begin).astype(np.uint32))
                begin += batch.num_rows
        return np.concatenate(found)


def halves(uid: pa.FixedSizeBinaryArray) -> tuple[Numbers, Numbers]:
    """Return the first and the last 8 bytes of each uid as numbers that sort as they do."""
    numbers = np.frombuffer(uid.buffers()[1], ">u8")[2 * uid.offset : 2 * (uid.offset + len(uid))]
    return numbers[::2].astype(np.uint64), numbers[1::2].astype(np.uint64)


def first_of_each(high: Numbers, low: Numbers, place: Numbers) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return which of the rows (N,), in any order, has the smallest place of its key (high, low), one for each key."""
    order = np.argsort(high)
    ordered = high[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.zeros(len(order), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    alone, rest = order[~tied], order[tied]
    rest = rest[np.lexsort((place[rest], low[rest], high[rest]))]
    begins = np.ones(len(rest), np.bool_)
    begins[1:] = (high[rest][1:] != high[rest][:-1]) | (low[rest][1:] != low[rest][:-1])
    return np.concatenate((alone, rest[begins]))
