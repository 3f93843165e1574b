"""Cut the rows that are fetched into shards: where each begins follows from counts alone, and its table from the one to
three shards of the select ledger that its rows stand in."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from manifests.files import digest_of, open_table, read_table, write_table
from manifests.journal import FileRecord, ShardRecord, records_of, upstream
from manifests.plans import Planned, plan_folder, put_plan, standing_plan
from manifests.schema import CARRIED, schema
from manifests.tombstones import tombstones_sha256
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import Scratch, do_pending, here, needs_of, sweep_scratch
from pipeline.execution.step import Do, Step, Unit
from pipeline.inputs.input_list import input_batches
from pipeline.steps.fetch.first import First
from pipeline.steps.sharding import without_gaps

PLANNED = ("uid", "source", "source_row", "url", *CARRIED)
PLANNING = 1
"""Raised when the same input is cut into other shards."""
STEP = "fetch"
"""Whose plan it is."""
Range = tuple[int, int, int]
"""A shard of the select ledger by its number, and from which to which of its rows in `ledger/first`."""


@dataclass(frozen=True)
class Cut:
    """A shard: the number of its first row among all, and where its rows stand."""

    start: int
    ranges: tuple[Range, ...]


def cut(counts: Sequence[tuple[int, int]], most: int) -> list[Cut]:
    """Return shards of at most `most` rows, in order; none goes on where the batch changes.

    `counts`: rows and batch of each shard of the select ledger.
    """
    shards: list[Cut] = []
    ranges: list[Range] = []
    row, start, held, batch = 0, 0, 0, None
    for number, (rows, own) in enumerate(counts):
        if rows and held and own != batch:
            shards.append(Cut(start, tuple(ranges)))
            ranges, start, held = [], row, 0
        batch, first = own if rows else batch, 0
        while first < rows:
            last = min(rows, first + most - held)
            ranges.append((number, first, last))
            row, held, first = row + last - first, held + last - first, last
            if held == most:
                shards.append(Cut(start, tuple(ranges)))
                ranges, start, held = [], row, 0
    return [*shards, Cut(start, tuple(ranges))] if held else shards


@dataclass(frozen=True)
class FetchPlan(Scratch):
    """Units are the shards of the select ledger, each with the shards of the plan that begin in it.

    Their tables come to `manifests/plan/fetch/` when all are whole.
    """

    name: ClassVar[str] = "fetch_plan"
    into: ClassVar[str] = "fetch_plan"
    few_rows: ClassVar[int] = 1_000_000  # 1.9 µs each, measured: two seconds
    needs: ClassVar[tuple[type[Step], ...]] = (First,)

    def settings(self) -> dict[str, Any]:
        """Return how many rows a shard has."""
        return {"shard_rows": self.recipe.fetch.shard_rows}

    def plan(self) -> list[Unit]:
        """Cut the rows by the counts of `ledger/first`."""
        selected, first = records_of(self.root, "select"), records_of(self.root, "first")
        shards = cut(self._counts(first), self.recipe.fetch.shard_rows)
        of: dict[int, list[list[Any]]] = {}
        for number, shard in enumerate(shards):
            rows = [[selected[n].files[0].path, first[n].files[0].path, *span] for n, *span in shard.ranges]
            of.setdefault(shard.ranges[0][0], []).append([f"{number:05d}", shard.start, rows])
        units = []
        for number, own in of.items():
            numbers = {number, *(n for name, *_ in own for n, *_ in shards[int(name)].ranges)}
            content = digest_of([own, [[selected[n].content, first[n].content] for n in sorted(numbers)]])
            rows = sum(last - begin for _, _, ranges in own for *_, begin, last in ranges)
            units.append(Unit(selected[number].shard, {"shards": own, "rows": rows}, content))
        return units

    def _counts(self, first: Sequence[ShardRecord]) -> list[tuple[int, int]]:
        files = input_batches(self.root).to_pydict() if first else {"source": [], "batch": []}
        batches = dict(zip(files["source"], files["batch"], strict=True))
        return [(record.rows_out, batches.get(record.read.get("source"), -1)) for record in first]

    def made_of(self) -> str:
        """Return a digest of everything that the plan depends on."""
        read = [upstream(self.root, "select"), input_batches(self.root).to_pydict(), tombstones_sha256(self.root)]
        return digest_of([STEP, PLANNING, self.recipe.fetch.shard_rows, *read])

    def standing(self) -> Planned | None:
        """Return the plan where it is whole and made from what there is now."""
        if not records_of(self.root, "select"):
            return []
        return standing_plan(self.root, STEP, self.made_of())

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Make the plan where it does not stand."""
        standing = self.standing()
        for need in needs_of(self) if standing != [] else ():  # where the plan stands too: a run that was stopped
            need.make(do, grouped)  # may have begun to write them for other rules
        if standing is not None:
            sweep_scratch(self.root, self.into)  # a killed run may have come this far
            return
        do_pending(self, do)
        made = [self.journal.get(unit.name) for unit in self.units()]
        tables = [file for record in made if record for file in record.files]
        put_plan(self.root, STEP, tables, self.folder, self.made_of())
        sweep_scratch(self.root, self.into)

    def open(self) -> "FetchPlanWorker":
        """Return what writes the tables."""
        return FetchPlanWorker(self)


@dataclass(frozen=True)
class FetchPlanWorker:
    """Writes planned tables, one after another, reading each row group of the select ledger about once."""

    step: FetchPlan

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write the tables of the shards that begin in one shard of the select ledger."""
        files, folder = [], plan_folder(self.step.folder, STEP)
        with in_flight.working_on(unit.name, ()), ExitStack() as stack:
            for name, start, table in self._tables(unit, stack):
                path = folder / f"{name}.parquet"
                write_table(path, as_before(table, start, self.step.recipe.fetch.shard_rows))
                files.append(FileRecord.of(self.step.folder, path))
        return ShardRecord(unit.name, unit.key, tuple(files), unit.reads["rows"], unit.reads["rows"])

    def _tables(self, unit: Unit, stack: ExitStack) -> Iterator[tuple[str, int, pa.Table]]:
        rows: FirstRows | None = None
        for name, start, ranges in unit.reads["shards"]:
            parts = []
            for ledger, first, begin, last in ranges:
                if rows is None or rows.ledger != ledger:
                    stack.close()
                    rows = FirstRows(self.step.root, ledger, first, stack)
                parts.append(rows.take(begin, last))
            yield name, start, pa.concat_tables(parts).combine_chunks()


def as_before(table: pa.Table, start: int, shard_rows: int) -> pa.Table:
    """Return a shard's rows as they are written, without gaps.

    Pages of a table end where its pieces do: they end at every `shard_rows` rows of the whole input, as they did when
    one query gave all rows, so that shards keep the bytes, and the keys, that they had then.
    """
    pieces, begin = [], 0
    while begin < table.num_rows:
        length = shard_rows - (start + begin) % shard_rows
        pieces.append(table.slice(begin, length))
        begin += length
    return without_gaps(pa.concat_tables(pieces)).select(PLANNED).cast(schema(*PLANNED))


class FirstRows:
    """The rows of a shard of the select ledger that `ledger/first` names; `stack` closes its file."""

    def __init__(self, root: Path, ledger: str, first: str, stack: ExitStack) -> None:
        self.ledger = ledger
        self._file = stack.enter_context(open_table(root / ledger))
        table = read_table(root / first)
        self._rows, self._gone = table["row"].to_numpy().astype(np.int64), table["gone"].combine_chunks()
        groups = range(self._file.num_row_groups)
        self._begins = np.cumsum([0, *(self._file.metadata.row_group(number).num_rows for number in groups)])
        self._held: tuple[int, pa.Table] | None = None

    def take(self, begin: int, last: int) -> pa.Table:
        """Return the rows from the one to the other, with `gone`."""
        rows = self._rows[begin:last]
        groups = np.searchsorted(self._begins, rows, "right") - 1
        parts = []
        for number in range(int(groups[0]), int(groups[-1]) + 1):
            own = rows[np.searchsorted(groups, number) : np.searchsorted(groups, number, "right")]
            parts.append(self._group(number).take(pa.array(own - self._begins[number])))
        return pa.concat_tables(parts).append_column("gone", self._gone.slice(begin, last - begin))

    def _group(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            self._held = number, self._file.read_row_group(number, list(PLANNED))
        return self._held[1]
