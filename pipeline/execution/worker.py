"""Run one worker process: a Beam pipeline of one ParDo over the units it was given; a loop for derived steps here."""

import os
import secrets
import signal
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import apache_beam as beam

from manifests.files import out_of_room, write_bytes
from manifests.guard import Guard
from manifests.publishing import RunOver, may_publish
from manifests.weights import WeightsError
from pipeline.execution.backends import pipeline_options
from pipeline.execution.cards import claim_card
from pipeline.execution.grouped import shuffled
from pipeline.execution.in_flight import InFlight
from pipeline.execution.job import DONE, FAILED, MISUSED, NO_ROOM, OVER, Job, error_path
from pipeline.execution.loaded import loaded
from pipeline.execution.run_token import holding
from pipeline.execution.shuffle import Gathered
from pipeline.execution.step import Step, Unit
from pipeline.execution.unit_marks import MarkedUnit, Place, let_go_all
from pipeline.execution.worker_signs import LOAD_S, alive
from pipeline.recipes.schema import RecipeError


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
        journal = self.step.journal
        with Guard() as guard, holding(self.step.root, self.token), loaded(self.job, self.step.open) as worker:
            if journal.done(unit.name, unit.key, now=True) is None:
                may_publish()
                with self._in_hand(unit) as in_flight:
                    journal.record(worker.run(unit, in_flight))
        self._raise(guard.error)
        yield unit.name

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
        for kinds, said in (((RecipeError, WeightsError), MISUSED), ((RunOver,), OVER)):
            code = said if isinstance(error, kinds) else code
        text = str(error) if code != FAILED else f"{type(error).__name__}: {error}"
        if self.in_flight:
            write_bytes(error_path(self.in_flight), f"{code}\n{text}".encode())
        raise error


def run(job: Job) -> None:
    """Run the job's units through Beam and return when all are done; without units only load what the step needs."""
    if not job.units:
        RunUnit(job.make_step(), job.in_flight, {}, job.token).setup()
        return
    step = job.make_step()
    if job.runner == "local" and step.derived:
        _one_after_another(RunUnit(step, job.in_flight, job.crash_counts, job.token), job.make_units())
        return
    runner, options = pipeline_options(job)
    in_flight = job.in_flight if job.runner == "local" else ""
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        if job.runner != "local" and isinstance(step, Gathered):
            shuffled(pipeline, step, job.make_units(), job.token)
            return
        units = pipeline | "units" >> beam.Create(job.make_units()) | "one bundle each" >> beam.Reshuffle()
        _ = units | job.step >> beam.ParDo(RunUnit(step, in_flight, job.crash_counts, job.token, job.stall_s))


def _one_after_another(run_unit: RunUnit, units: list[Unit]) -> None:
    """Do units without a pipeline around them, which takes 0.3 CPU s to start: a shuffle has a handful of legs, each of
    which is done in less."""
    run_unit.setup()
    for unit in units:
        for _ in run_unit.process(unit):
            """The name of the unit, which nobody asks for here."""


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
