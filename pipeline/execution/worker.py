"""Run one worker process: a Beam pipeline of one ParDo over what it can claim, on an engine over the units that are
left; derived steps here without one."""

import os
import secrets
import signal
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import apache_beam as beam

from captioning.captioner import CaptionerError
from manifests.files import out_of_room, write_bytes
from manifests.guard import Guard
from manifests.publishing import RunOver, may_publish
from manifests.weights import WeightsError
from pipeline.execution.backends import pipeline_options
from pipeline.execution.cards import claim_card
from pipeline.execution.claims import Claims
from pipeline.execution.grouped import shuffled
from pipeline.execution.in_flight import InFlight
from pipeline.execution.job import DONE, FAILED, MISUSED, NO_ROOM, OVER, Job, error_path
from pipeline.execution.loaded import loaded
from pipeline.execution.run_token import holding
from pipeline.execution.shuffle import Gathered
from pipeline.execution.step import Step, Unit, Worker, made
from pipeline.execution.unit_marks import MarkedUnit, Place, let_go_all
from pipeline.execution.worker_signs import LOAD_S, alive
from pipeline.recipes.schema import RecipeError

REFUSING = (RecipeError, WeightsError, CaptionerError)
"""What is the recipe's fault, or comes again however often it is tried."""


class RunUnit(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """The one DoFn of every step: do a unit, journal its record, both under the run's token."""

    def __init__(
        self, step: Step, in_flight: str, crash_counts: dict[str, int], token: str = "", stall_s: float = 0.0
    ) -> None:
        self.step, self.in_flight, self.crash_counts, self.token = step, in_flight, crash_counts, token
        self.stall_s = stall_s
        self.job = secrets.token_hex(8)
        """The same in all copies that an engine makes of this, and no other's: a process loads the worker once."""

    def setup(self) -> None:
        """Load the step's models, unless another thread of this process has."""
        with Guard() as guard, holding(self.step.root, self.token):
            may_publish()
            if self.step.on_card and not self.in_flight:  # on this machine the supervisor has shared them out
                claim_card()
            with self._alive(), loaded(self.job, self.step.open):
                if self.in_flight:
                    Path(self.in_flight).touch()  # ready: from now on silence counts
        self._raise(guard.error)

    def process(self, unit: Unit) -> Iterator[str]:
        """Do one unit, when its turn has come, unless another attempt has done it meanwhile."""
        with Guard() as guard, holding(self.step.root, self.token), loaded(self.job, self.step.open) as worker:
            if self._is_left(unit):
                with self._in_hand(unit) as in_flight:
                    self._do(worker, iter([unit]), in_flight)
        self._raise(guard.error)
        yield unit.name

    def _is_left(self, unit: Unit) -> bool:
        may_publish()
        return self.step.journal.done(unit.name, unit.key, now=True) is None

    def _do(self, worker: Worker, units: Iterator[Unit], in_flight: InFlight) -> None:
        for record in made(worker, units, in_flight):
            self.step.journal.record(record)

    def _alive(self) -> AbstractContextManager[None]:
        """Say to the driver of an engine's job that this worker has come, and loads."""
        token = "" if self.in_flight else self.token
        return alive(self.step.root, self.step.name, token, max(LOAD_S, self.stall_s))

    def _in_hand(self, unit: Unit) -> AbstractContextManager[InFlight]:
        """Return where the rows in hand are noted: for the supervisor of this machine, else in the run folder."""
        if self.in_flight or not self.token:
            return nullcontext(InFlight(Path(self.in_flight) if self.in_flight else None, self.crash_counts))
        return MarkedUnit(Place(self.step.root, self.step.name, self.token, self.stall_s), unit.name)

    def _raise(self, error: Exception | None) -> None:
        """Raise an error, and leave it for the supervisor: Beam passes on its text alone."""
        if error is None:
            return
        code = NO_ROOM if out_of_room(error) else FAILED
        for kinds, said in ((REFUSING, MISUSED), ((RunOver,), OVER)):
            code = said if isinstance(error, kinds) else code
        text = str(error) if code != FAILED else f"{type(error).__name__}: {error}"
        if self.in_flight:
            write_bytes(error_path(self.in_flight), f"{code}\n{text}".encode())
        raise error


class RunClaimed(RunUnit):
    """The same on this machine: do units that nobody else has claimed, one after another, or as a stream."""

    def process(self, claims: tuple[str, int]) -> Iterator[str]:  # type: ignore[override]  # its element is the folder
        """Do units of this folder as this worker until all are claimed."""
        folder, number = claims
        with Guard() as guard, holding(self.step.root, self.token), loaded(self.job, self.step.open) as worker:
            in_flight = InFlight(Path(self.in_flight), self.crash_counts)
            units = self._told(Claims(Path(folder)), number, in_flight)
            self._do(worker, filter(self._is_left, units), in_flight)
        self._raise(guard.error)
        return iter(())

    @staticmethod
    def _told(claims: Claims, number: int, in_flight: InFlight) -> Iterator[Unit]:
        """Yield units as they are claimed, with what is known by then of rows that others died with."""
        for unit in claims.taken(number):
            in_flight.crash_counts = {**in_flight.crash_counts, **claims.deaths()}
            yield unit


def run(job: Job) -> None:
    """Run what can be claimed, on an engine the job's units, through Beam; without either only load what the step
    needs."""
    step = job.make_step()
    if not job.units and not job.claims:
        RunUnit(step, job.in_flight, {}, job.token).setup()
        return
    if job.claims:
        _run_claimed(job, step)
        return
    runner, options = pipeline_options(job)
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        if isinstance(step, Gathered):
            shuffled(pipeline, step, job.make_units(), job.token)
            return
        units = pipeline | "units" >> beam.Create(job.make_units()) | "one bundle each" >> beam.Reshuffle()
        _ = units | job.step >> beam.ParDo(RunUnit(step, "", {}, job.token, job.stall_s))


def _run_claimed(job: Job, step: Step) -> None:
    """Do what can be claimed: in a pipeline of one element, but for derived steps, since a pipeline takes 0.3 CPU s to
    start and a shuffle has a handful of legs, each of which is done in less."""
    element = job.claims, int(job.runtime.get("lane", 0))
    run_claimed = RunClaimed(step, job.in_flight, job.crash_counts, job.token)
    if step.derived:
        run_claimed.setup()
        run_claimed.process(element)
        return
    runner, options = pipeline_options(job)
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = pipeline | "what can be claimed" >> beam.Create([element]) | job.step >> beam.ParDo(run_claimed)


def end_orderly() -> None:
    """Let SIGTERM, by which an engine and a pool end a process that did nothing wrong, charge no row with that; for a
    process's main thread."""

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        let_go_all()
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def work(path: Path) -> int:
    """Run the job in this file; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    job = Job.read(path)
    if job.runner != "local":
        end_orderly()
    with Guard() as guard:
        run(job)
    if guard.error is not None:
        traceback.print_exception(guard.error)
        error = error_path(job.in_flight)
        return int(error.read_text().partition("\n")[0]) if error.is_file() else FAILED
    return DONE
