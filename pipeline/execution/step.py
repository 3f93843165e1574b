"""Say what a step is: units of work planned by the driver, run by workers, each done under a key."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from manifests.files import digest_of, write_json
from manifests.journal import STEP, Journal, ShardRecord
from manifests.weights import WeightsFile
from pipeline.execution.in_flight import InFlight
from pipeline.execution.redaction import RemovedRows, from_unit
from pipeline.execution.stand_ins import StandIn
from pipeline.recipes.schema import Recipe


@dataclass(frozen=True)
class Unit:
    """One unit of work: a shard's name, where its input is, a digest of what it will read, and the key it is done
    under."""

    name: str
    reads: dict[str, Any]
    content: str
    key: str = ""


@dataclass(frozen=True)
class Runtime:
    """What this invocation knows and no digest may depend on: where host names lead to, which failed fetches are asked
    again, and who works beside whom.

    `lanes`: worker processes that share what a step may take of others' servers, 0 where nobody knows; `lane`: which of
    them this is; `budget`: the file through which they share it, "" where each takes its part of it; `serving`: where,
    HOST:PORT, this run itself serves what is fetched: once nobody answers there, what is missing says nothing.
    """

    connect_to: dict[str, str] = field(default_factory=dict)
    retry: tuple[str, ...] = ()
    lanes: int = 1
    lane: int = 0
    budget: str = ""
    serving: str = ""


class Worker(Protocol):
    """A step inside a worker process, its models loaded once."""

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Do one unit and return its record; outputs are whole files by then."""


@runtime_checkable
class StreamingWorker(Worker, Protocol):
    """A worker that begins a unit before the one before has ended, so that the end of none leaves its model waiting."""

    def stream(self, units: Iterator[Unit], in_flight: InFlight) -> Iterator[ShardRecord]:
        """Draw units as there is room for their rows, and yield the record of each as it is done, in any order."""


def made(worker: Worker, units: Iterator[Unit], in_flight: InFlight) -> Iterator[ShardRecord]:
    """Let a worker do units, and yield the record of each as it is done."""
    if isinstance(worker, StreamingWorker):
        yield from worker.stream(units, in_flight)
        return
    for unit in units:
        yield worker.run(unit, in_flight)


@dataclass(frozen=True)
class Step:
    """One step of a stage. `version` is part of the key: bump it when outputs change."""

    recipe: Recipe
    root: Path
    runtime: Runtime = Runtime()
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    beam: ClassVar[bool] = True
    """False: one unit, done by the driver itself in DuckDB."""
    carries: ClassVar[bool] = False
    """True: rows of shards whose plan changed are carried over (see reuse.py), and what falls out is set aside."""
    made_from: ClassVar[str] = "sha256"
    """Column of a step that carries: sha256 of what a row was made from; empty where its uid says so."""
    over_all_rows: ClassVar[bool] = False
    """True: its one unit looks at all rows, tombstones among them: where rows are removed it runs again, and nothing is
    taken out of its files."""
    derived: ClassVar[bool] = False
    """True: what it makes can be made again from the run's own files: it has a journal, and stands in no manifest, no
    digest and no `--step`; a step that needs it brings it along (see shuffle.py)."""
    needs: ClassVar["tuple[type[Step], ...]"] = ()
    """Derived steps that this one plans from, in order."""
    on_card: ClassVar[bool] = False
    """True: its models run on a GPU where there is one."""
    loaded_before: ClassVar[bool] = False
    """True: a step before it in its stage loads the same weights, and has found them good."""
    counts_rows: ClassVar[bool] = False
    """True: its rows and reasons are those of the stage's manifest."""
    noun: ClassVar[str] = "rows"
    """What its workers count, as they say how far they are in a unit."""
    reason_column: ClassVar[str] = "reason"
    """Column of its first table that says why a row has no output."""

    def settings(self) -> dict[str, Any]:
        """Return the recipe values that this step reads: part of its key."""
        raise NotImplementedError

    def weights(self) -> Sequence[WeightsFile]:
        """Return the weights that this step's numbers depend on: part of its key. Raises WeightsError."""
        return ()

    def check(self) -> None:
        """Look into the user's own weights, in the driver and before any work. Raises WeightsError where the step
        cannot use them."""

    def plan(self) -> list[Unit]:
        """Return the units, from what the steps before have left. Runs in the driver."""
        raise NotImplementedError

    def open(self) -> Worker:
        """Load what a worker needs. Runs once in a worker process."""
        raise NotImplementedError

    def turn(self, unit: Unit) -> str:
        """Return by what units come in order where workers claim them: those that need the same model together."""
        return ""

    def is_small(self, pending: Sequence[Unit]) -> bool:
        """Tell whether units are done in the driver, one after another, rather than by workers."""
        return not self.beam

    @cached_property
    def own_key(self) -> str:
        """Return the digest of version, settings and weights: a step whose own key changed runs again."""
        return digest_of([self.name, self.version, self.settings(), [file.record() for file in self.weights()]])

    def units(self) -> list[Unit]:
        """Return the planned units with their keys: the step's own key and what the unit reads."""
        return [replace(unit, key=self.key_of(unit)) for unit in self.plan()]

    def key_of(self, unit: Unit) -> str:
        """Return the key that a planned unit is done under."""
        return digest_of([self.own_key, unit.name, unit.content])

    def notes(self) -> list[str]:
        """Return what the user is told before any work starts. Raises RecipeError where the step cannot run here."""
        return []

    def plan_notes(self, units: Sequence[Unit]) -> list[str]:
        """Return what the user is told of the planned units, just before they run."""
        return []

    def alike(self) -> Collection[str]:
        """Return the digests of version, settings and weights under which rows that were set aside may be used: its own
        key, and where rows tell how they were made those of other settings."""
        return {self.own_key}

    def stand_ins(self, made_by: str) -> Mapping[str, StandIn]:
        """Return the other digests of settings under which rows were made that stand for rows made under this one (see
        stand_ins.py)."""
        return {}

    def prepare(self, pending: Sequence[Unit]) -> None:
        """Do, in the driver and before any of these units starts, what their workers need beside their plan."""

    def bring(self, pending: Sequence[Unit], do: "Do", grouped: bool = False) -> None:
        """Do, before any of these units starts, the derived work that their workers read. `do` and `grouped`: how its
        units are done (see shuffle.py)."""

    def outcome_notes(self) -> list[str]:
        """Return what the user is told of the step's outputs, once its units are done."""
        return []

    def results(self, records: Sequence[ShardRecord]) -> Sequence[ShardRecord]:
        """Return the records whose rows the stage's manifest counts, of all that are in the step's journal."""
        return records

    def facts(self) -> dict[str, Any]:
        """Return what the stage's manifest says of the step's outputs beside their counts: name -> facts."""
        return {}

    def tiers(self) -> dict[str, int]:
        """Return tier -> rows that the stage has put into it, where this step is the one that does."""
        return {}

    def losses(self) -> list[dict[str, Any]]:
        """Return what of the input could not be read, for the manifest's `losses`."""
        return []

    def redact(self, record: ShardRecord, removed: RemovedRows) -> ShardRecord:
        """Take the rows that go out of a finished unit's files; return its record under its old key, the same where it
        holds none of them. Raises DamagedFileError."""
        return from_unit(self.root, record, removed, self.reason_column)

    def packed_bytes(self, uids: Collection[bytes]) -> dict[bytes, dict[str, int]]:
        """Return uid -> tier -> bytes that a sample counts in the cutting of the tier's shards, where this step cuts
        them: a removed one leaves its place empty."""
        return {}

    def settle(self, steps: "Sequence[Step]") -> list[str]:
        """Do, in the driver, what the ended units ask of the whole run, and return what the user is told of it; done
        twice it changes nothing. `steps`: those of every stage, in order."""
        return []

    def do_unit(self, unit: Unit, do: "Do", grouped: bool = False) -> ShardRecord:
        """Do a unit of a step that the driver itself does, and return its record. `do` and `grouped`: how units of
        derived steps within it are done (see shuffle.py)."""
        return self.open().run(unit, InFlight())

    @property
    def journal(self) -> Journal:
        """Return the step's journal."""
        return Journal(self.root, self.name)


Do = Callable[[Step, Sequence[Unit]], None]
"""How pending units of a step are done: in workers, or here (see `shuffle.here`)."""


def settings_changed(step: Step) -> bool:
    """Tell whether a step was done with other settings than the recipe's, or is not done."""
    before = step.journal.note()
    return before is None or bool(before["settings"] != _plain(step.settings()))


def _plain(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))


def state_of(step: Step) -> str:
    """Return whether a step is new, unchanged, or which of its settings changed. Checks its weights on the way."""
    own_key = step.own_key
    before = step.journal.note()
    if before is None:
        return "new"
    if before["own_key"] == own_key:
        return "unchanged"
    now = _plain(step.settings())
    names = sorted(name for name in {*now, *before["settings"]} if now.get(name) != before["settings"].get(name))
    return f"changed ({', '.join(names) or 'weights or version'})"


def note_step(step: Step, *, empty: bool = False) -> None:
    """Note under which settings a step was done last, and whether it had nothing to do."""
    note = {"step": step.name, "own_key": step.own_key, "settings": _plain(step.settings())}
    note |= {"empty": True} if empty else {}
    write_json(step.journal.folder / STEP, note, sealed=True)
