"""Move rows between two groupings by part: what a question over all rows of a run is made of, in flat memory.

A shuffle is a row of legs and an end, all of them derived steps (`Step.derived`), whose functions are pure and work on
Arrow batches:

    class Split(Leg):      units: files of the run      spread(unit, no rows) -> (part of each row, rows), in pieces
    class Reduce(Leg):     units: parts of `after`      spread(unit, the part's rows) -> the same, for the next grouping
    class Labels(Gathered): units: parts of the last leg; finish(unit, the part's rows) -> ShardRecord of what it wrote

    legs = (Split, Reduce); Labels(recipe, root).make(do)   # do: how units are done; `here`: in this process

On this machine a leg's unit writes one file of slices, a slice a part, below `.shuffle/NAME/`, and a unit behind it
reads its slice of every file; `receive` takes what two legs sent, or all that one did. Legs have journals there, so
that a kill loses one unit; the folder goes when the end has all of its records, and a run with nothing to do splits
nothing. On a cluster the same functions stand around Beam's GroupByKey (grouped.py). Rows for others than units of a
shuffle are handed over part by part (delivered.py). Rows come in any order: whoever gets them sorts by the full key
before he decides. How many parts there are stands in no key but a leg's own and in no output: the bytes are the same
for each number.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa

from manifests.files import digest_of, writing
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.layout import SCRATCH
from manifests.store import drop
from pipeline.execution.in_flight import InFlight
from pipeline.execution.planned import do_planned
from pipeline.execution.slices import HELD_BYTES, Piece, parts_in, read_slice, write_slices
from pipeline.execution.step import Do, Step, Unit

SLICE_BYTES = 32_000_000
"""Bytes of rows that one part is to hold: a unit behind a leg has some five times that in memory."""
EVEN, EVEN_BYTES = 8, 2_000_000
"""Parts that there are at least, so that workers have as much to do, unless they would be smaller than that."""
FEW_ROWS = 200_000
"""Rows below which units are done in the driver, where their step does not say."""
Batches = Iterable[pa.RecordBatch]
"""What a leg has sent to a unit, in any order; it can be gone through several times."""


def here(step: Step, units: Sequence[Unit]) -> None:
    """Do units in this process, one after another."""
    worker = step.open() if units else None
    for unit in units:
        if worker is not None:
            step.journal.record(worker.run(unit, InFlight()))


def parts_for(rows: int, schema: pa.Schema, even: int = EVEN, most: int | None = None) -> int:
    """Return into how many parts rows of this schema, all of fixed width, are split; `most`: bytes that one is to hold,
    where that is less than SLICE_BYTES."""
    size = rows * sum(int(field.type.bit_width) for field in schema) // 8
    return max(1, -(-size // min(most or SLICE_BYTES, SLICE_BYTES)), min(even, size // EVEN_BYTES))


@dataclass(frozen=True)
class Derived(Step):
    """A step whose files can be made again from the run's own: it has a journal, and stands in no manifest and no
    digest. Each unit's reads have `rows`, how many it looks at: few are not worth a worker."""

    derived: ClassVar[bool] = True
    few_rows: ClassVar[int] = FEW_ROWS
    """Rows below which its units are done in the driver: more where a row costs little, since workers take a second to
    start."""

    def is_small(self, pending: Sequence[Unit]) -> bool:
        """Tell whether the driver does units sooner than workers have started: one alone, or few rows."""
        return len(pending) == 1 or sum(unit.reads["rows"] for unit in pending) < self.few_rows

    def settings(self) -> dict[str, Any]:
        """Return nothing: a derived step depends on what it reads."""
        return {}

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Make what is not made; nothing where all is. `grouped`: `do` runs the legs before it in one pipeline."""
        raise NotImplementedError


def make_needs(step: Step, do: Do = here, grouped: bool = False) -> None:
    """Make what a step plans from and is not made."""
    for need in needs_of(step):
        need.make(do, grouped)


def needs_of(step: Step) -> list[Derived]:
    """Return the derived steps that a step plans from, in order, at work where it is."""
    return [need(step.recipe, step.root, step.runtime) for need in step.needs if issubclass(need, Derived)]


@dataclass(frozen=True)
class Scratch(Derived):
    """A derived step whose files, and journal, lie in `.shuffle/NAME/` while they are needed."""

    into: ClassVar[str] = ""
    """NAME."""

    @property
    def folder(self) -> Path:
        """Return where its files lie."""
        return self.root / SCRATCH / self.into

    @property
    def journal(self) -> Journal:
        """Return the journal beside them; what it records is relative to `folder`."""
        return Journal(self.folder, self.name)

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Do what is not done of its units, and drop the files of others."""
        do_pending(self, do)


def do_pending(step: Step, do: Do) -> None:
    """Do what is not done of a step's units, and drop the files of units of before."""
    units = step.units()
    do_planned(step, units, _not_done(step, units), do)
    step.journal.forget_others(unit.name for unit in units)


def pending_of(step: Step) -> list[Unit]:
    """Return what is not done of a step's units."""
    return _not_done(step, step.units())


def _not_done(step: Step, units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if step.journal.done(unit.name, unit.key) is None]


@dataclass(frozen=True)
class Leg(Scratch):
    """A grouping's way into the next one: each unit's rows, spread over parts."""

    carried: ClassVar[pa.Schema]
    """What a row is on its way; all of fixed width, where `parts_for` says how many parts there are."""
    after: ClassVar["type[Leg] | None"] = None
    """The leg whose parts are this one's units; None: its units are files of the run, and it has a plan of its own."""
    beside: ClassVar["type[Leg] | None"] = None
    """Another leg, of as many parts, whose rows its units need too."""
    held_bytes: ClassVar[int] = HELD_BYTES
    """Bytes of rows that a unit holds before it writes them."""
    whole: ClassVar[bool] = False
    """True: it has one unit, for all parts of the leg before."""

    def reads(self) -> str:
        """Return a digest of all that the shuffle reads."""
        raise NotImplementedError

    def rows(self) -> int:
        """Return how many rows go through this leg, at most."""
        raise NotImplementedError

    def parts(self) -> int:
        """Return into how many parts it spreads its rows."""
        raise NotImplementedError

    def spread(self, unit: Unit, rows: pa.Table) -> Iterator[Piece]:
        """Yield a unit's rows in pieces, each with the parts that they go to. `rows`: what the leg before sent there,
        in any order; none where there is no leg before. `unit.reads`: `parts`, and `part`, the number of the unit."""
        raise NotImplementedError

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> Iterator[Piece]:
        """Yield what `spread` does, given what the leg before and the one beside it sent: for legs that take the rows
        of both, or of one batch by batch."""
        rows = table_of(sent[0], self.after) if self.after else self.carried.empty_table()
        return self.spread(unit, rows)

    @classmethod
    def senders(cls) -> "list[type[Leg]]":
        """Return the legs whose rows it receives."""
        return [leg for leg in (cls.after, cls.beside) if leg is not None]

    def plan(self) -> list[Unit]:
        """Return a unit for each part of the leg before."""
        if self.after is None:
            raise NotImplementedError
        before, parts = self.after(self.recipe, self.root, self.runtime).parts(), self.parts()
        content = digest_of([self.reads(), before, parts])
        rows = self.rows() // before
        return [Unit(f"{part:05d}", {"part": part, "parts": parts, "rows": rows}, content) for part in range(before)]

    def open(self) -> "LegWorker":
        """Return what writes files of slices."""
        return LegWorker(self)


@dataclass(frozen=True)
class LegWorker:
    """Does a leg's units on this machine."""

    leg: Leg

    @cached_property
    def before(self) -> "list[Slices]":
        """Return the slices that it reads."""
        return [Slices.of(leg, self.leg.root) for leg in self.leg.senders()]

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `.shuffle/NAME/LEG/UNIT.slices`."""
        leg, part = self.leg, None if self.leg.whole else unit.reads.get("part")
        with in_flight.working_on(unit.name, ()):
            pieces = leg.receive(unit, [Sent(slices, part) for slices in self.before])
            return record_slices(leg, leg.name, unit, unit.reads["parts"], pieces)


def record_slices(leg: Leg, step: str, unit: Unit, parts: int, pieces: Iterable[Piece]) -> ShardRecord:
    """Write rows of a leg as the slices of a step's unit, `.shuffle/INTO/STEP/UNIT.slices`; return its record."""
    path = leg.folder / step / f"{unit.name}.slices"
    with writing(path) as temporary, open(temporary, "wb") as file:
        written = write_slices(file, parts, leg.carried, pieces, leg.held_bytes)
    files = (FileRecord(path.relative_to(leg.folder).as_posix(), "", path.stat().st_size),)
    return ShardRecord(unit.name, unit.key, files, written, written)


@dataclass(frozen=True)
class Slices:
    """All files of slices that a leg has written."""

    paths: tuple[Path, ...]
    schema: pa.Schema

    @classmethod
    def of(cls, leg: type[Leg], root: Path) -> Self:
        """Find a leg's files in the run at `root`: those that its journal names, since a kill may leave others."""
        folder = root / SCRATCH / leg.into
        files = [file for record in records_of(folder, leg.name) for file in record.files]
        return cls(tuple(folder / file.path for file in files), leg.carried)

    def of_part(self, part: int) -> pa.Table:
        """Return the rows of a part."""
        return pa.Table.from_batches(Sent(self, part), self.schema)


@dataclass(frozen=True)
class Sent:
    """What stands in files of slices for a part, or for all of them, read anew each time."""

    slices: Slices
    part: int | None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for path in self.slices.paths:
            for part in range(parts_in(path)) if self.part is None else (self.part,):
                yield from read_slice(path, part, self.slices.schema)


def table_of(batches: Batches, leg: type[Leg]) -> pa.Table:
    """Return the rows that a leg has sent as one table."""
    return pa.Table.from_batches(batches, leg.carried)


@dataclass(frozen=True)
class Gathered(Derived):
    """The end of a shuffle: its units are the parts of the last leg, and its files stay."""

    legs: ClassVar[tuple[type[Leg], ...]] = ()
    """In an order in which they can be made."""
    ends: ClassVar[tuple[type[Leg], ...]] = ()
    """Those whose parts are its units; none named: the last."""

    def finish(self, unit: Unit, rows: pa.Table) -> ShardRecord:
        """Write what a part's rows, in any order, amount to. `unit.reads`: `part`, the number of the unit."""
        raise NotImplementedError

    def receive(self, unit: Unit, sent: Sequence[Batches]) -> ShardRecord:
        """Do what `finish` does, given what each of `senders` sent."""
        return self.finish(unit, table_of(sent[0], self.senders()[0]))

    @classmethod
    def senders(cls) -> list[type[Leg]]:
        """Return the legs whose rows it receives."""
        return list(cls.ends or cls.legs[-1:])

    def before(self) -> list[Leg]:
        """Return the legs, in order."""
        return [leg(self.recipe, self.root, self.runtime) for leg in self.legs]

    def make(self, do: Do = here, grouped: bool = False) -> None:
        """Do what is not done of its units, behind the legs, and drop the slices."""
        if pending := pending_of(self):
            (self.root / SCRATCH / self.name).mkdir(parents=True, exist_ok=True)  # says that it is under way
            if not grouped or self.is_small(pending):
                self.make_legs(do)
        do_pending(self, do)
        if self.journal.root == self.root:  # not beside what goes soon
            self.journal.compact()
        sweep_scratch(self.root, self.name)

    def make_legs(self, do: Do) -> None:
        """Make the slices that its units read."""
        for leg in self.before():
            leg.make(do)

    def open(self) -> "GatheredWorker":
        """Return what reads slices."""
        return GatheredWorker(self)


@dataclass(frozen=True)
class GatheredWorker:
    """Does the units at the end of a shuffle on this machine."""

    step: Gathered

    @cached_property
    def before(self) -> list[Slices]:
        """Return the slices that it reads."""
        return [Slices.of(leg, self.step.root) for leg in self.step.senders()]

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write a unit's files from its slices."""
        with in_flight.working_on(unit.name, ()):
            return self.step.receive(unit, [Sent(slices, unit.reads["part"]) for slices in self.before])


def sweep_scratch(root: Path, into: str) -> None:
    """Drop what has come through, and `.shuffle` itself where nothing else is on its way."""
    drop(root / SCRATCH / into)
    with contextlib.suppress(OSError):  # not there, or not empty
        (root / SCRATCH).rmdir()


def drop_scratch(root: Path) -> None:
    """Drop what shuffles under way have written: they begin anew."""
    drop(root / SCRATCH)
