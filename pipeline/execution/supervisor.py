"""Run a step's units: in supervised worker processes on this machine, or on an engine (engine_run.py)."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from manifests.files import sweep_after
from manifests.scratch import room_in
from manifests.store import scratch_of
from manifests.uid import uid_hash
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.claims import Claims
from pipeline.execution.engine_run import EngineRun
from pipeline.execution.environment import worker_environment
from pipeline.execution.errors import RunFailed
from pipeline.execution.forkserver import WorkerProcess, forkserver
from pipeline.execution.gathering import Gathering
from pipeline.execution.in_flight import DEATHS_OF_A_POISONED_ROW, InFlight, last_sign, read_in_flight, read_part
from pipeline.execution.job import DONE, MISUSED, NO_ROOM, OVER, Job, error_path
from pipeline.execution.progress import Progress
from pipeline.execution.run_token import current_token
from pipeline.execution.step import Runtime, Step, Unit
from pipeline.recipes.schema import RecipeError

FRUITLESS_DEATHS = 12
"""Deaths in one step, beyond one per 10,000 rows done, after which the run gives up; three at one shard without a row
in hand do too."""


TICK_S = 0.05
"""Seconds between two looks at workers that go on."""
LISTEN_S = 1.0
"""Seconds between two looks at how far the workers are."""
START_S = 900.0
"""Seconds that a worker may take to load its models before it counts as dead."""


@dataclass
class WorkerHandle:
    """One worker process and what it was given."""

    number: int
    process: WorkerProcess
    in_flight: Path
    log: Path
    started: float = field(default_factory=time.time)


class Supervisor:
    """Keeps worker processes on a step's units until every unit has its record."""

    def __init__(self, step: Step, options: RunnerOptions, progress: Progress) -> None:
        self.step, self.options, self.progress = step, options, progress
        self.crash_counts: Counter[str] = Counter()
        self.deaths = 0
        self.dead: set[int] = set()
        """Process numbers of workers that did not come to their end."""
        self.workers: dict[int, WorkerHandle] = {}
        self.folder = scratch_of(step.root) / "logs" / "workers"
        self.lanes = step.runtime.lanes
        self.listened = 0.0
        self.gathering = Gathering(step, progress)
        self.claims = Claims(self.folder / f"{step.name}.claims")
        self.budget = self.folder / f"{step.name}.budget"
        """What the workers of a step on this machine take of others' servers together; a file of its own in each
        run of it."""

    def run(self, units: Sequence[Unit]) -> None:
        """Return when all units are done. Raises RunFailed or RecipeError; stops its workers on the way out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pending = {unit.name: unit for unit in units}
        self.lanes = count = min(self.options.processes, len(units))
        self._sweep()
        shuffled = sorted(units, key=lambda unit: (self.step.turn(unit), uid_hash(unit.name.encode(), 0)))
        self.claims.open(shuffled)
        try:
            for number in range(count):
                self._start(number)
            while self.workers:
                self._wait()
                self.gathering.collect(pending, now=False)
                self._listen(count)
                self.progress.show()
                for worker in list(self.workers.values()):
                    self._attend(worker, pending)
            self._listen(count, now=True)
        finally:
            self._stop_workers()
            self._sweep()
            sweep_after(self.step.root, self.dead)
        if pending:
            raise RunFailed(
                f"{self.step.name}: the runner ended without a record of {len(pending)} shards:"
                f" {', '.join(sorted(pending)[:5])}"
            )

    def _wait(self) -> None:
        """Let TICK_S pass, or less where one of the workers ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            next(iter(self.workers.values())).process.wait(TICK_S)

    def check(self) -> None:
        """Let one worker load what the step needs, and end it. Raises RecipeError for weights that do not fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            worker = self._start(0)
            code = worker.process.wait()
        finally:
            self._stop_workers()
        if code != DONE:
            self._charge(worker, *self._said(worker, code), "")
            raise RunFailed(f"{self.step.name}: its models cannot be loaded; its log: {worker.log}")

    def _sweep(self) -> None:
        """Take away what workers only share while they run."""
        for path in (self.budget, *self.folder.glob(f"{self.step.name}-*.part")):
            path.unlink(missing_ok=True)
        self.claims.close()

    def _listen(self, count: int, now: bool = False) -> None:
        """Read once a second how far each worker is in its unit, where it says so."""
        if now or time.monotonic() - self.listened > LISTEN_S:
            self.listened = time.monotonic()
            stems = [self.folder / f"{self.step.name}-{number}" for number in range(count)]
            parts = [read_part(stem.with_suffix(".in_flight")) for stem in stems]
            self.progress.parts = [part for part in parts if part is not None]

    def _stop_workers(self) -> None:
        for worker in self.workers.values():
            worker.process.stop()
            self._note_end(worker)
        self.workers.clear()
        for scratch in self.folder.glob("*.tmp"):
            shutil.rmtree(scratch, ignore_errors=True)

    def _start(self, number: int) -> WorkerHandle:
        """Start a worker on what can be claimed, or only to load where nothing can; from then on `_stop_workers` stops
        it."""
        stem = self.folder / f"{self.step.name}-{number}"
        in_flight, log = stem.with_suffix(".in_flight"), stem.with_suffix(".log")
        in_flight.write_text("")
        error_path(str(in_flight)).unlink(missing_ok=True)
        job = Job(
            f"{type(self.step).__module__}:{type(self.step).__qualname__}",
            str(self.step.root),
            self.step.recipe.plain(),
            [],
            str(in_flight),
            dict(self.crash_counts),
            asdict(self._runtime(number)),
            self.options.runner,
            list(self.options.beam_options),
            current_token(self.step.root),
            claims=str(self.claims.folder.resolve()) if self.claims.folder.is_dir() else "",
        )
        job.write(stem.with_suffix(".job"))
        scratch = stem.with_suffix(".tmp")  # what Beam leaves behind when its process is killed
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        process = forkserver().start(
            stem.with_suffix(".job").resolve(),
            log.resolve(),
            {**worker_environment(number), "TMPDIR": str(scratch.resolve())},
        )
        self.workers[number] = WorkerHandle(number, process, in_flight, log)
        return self.workers[number]

    def _runtime(self, number: int) -> Runtime:
        """Return what a worker knows of those beside it."""
        shared = str(self.budget.resolve()) if self.lanes > 1 else ""
        return replace(self.step.runtime, lanes=self.lanes, lane=number, budget=shared)

    def _attend(self, worker: WorkerHandle, pending: dict[str, Unit]) -> None:
        """Let go of a worker that is done; charge one that died, and start its successor where units are left that no
        other has claimed."""
        code = self._exit_code(worker)
        if code is None:
            return
        worker.process.stop()
        self._note_end(worker)
        del self.workers[worker.number]
        self.gathering.collect(pending)
        if code == DONE or not pending:
            return
        code, message = self._said(worker, code)
        self._count(worker)
        self.claims.note_deaths(self.crash_counts)  # before others may take over what it had
        self.claims.free(worker.number)
        left = not all(self.claims.is_claimed(name) for name in pending)
        self._charge(worker, code, message, "starting it again" if left else "the others go on")
        if left:
            self._start(worker.number)

    def _count(self, worker: WorkerHandle) -> None:
        """Count a death against the rows in hand, else against the shard."""
        unit, uids = read_in_flight(worker.in_flight)
        self.deaths += 1
        self.crash_counts.update(uids or [f"shard {unit}"])

    def _note_end(self, worker: WorkerHandle) -> None:
        """Note a worker that may have left files half-written."""
        if worker.process.poll() != DONE and worker.process.pid:
            self.dead.add(worker.process.pid)

    def _exit_code(self, worker: WorkerHandle) -> int | None:
        """Return the exit code, SIGKILL's where the worker has been silent for too long, None while it works."""
        code = worker.process.poll()
        if code is not None:
            return code
        sign = last_sign(worker.in_flight)
        limit = self.options.stall_s if sign > worker.started else max(self.options.stall_s, START_S)
        return None if time.time() - max(sign, worker.started) < limit else -signal.SIGKILL

    def _said(self, worker: WorkerHandle, code: int) -> tuple[int, str]:
        """Return the exit code and the error that a worker left. Raises RecipeError or RunFailed for what would come
        again."""
        error = error_path(str(worker.in_flight))
        said, _, message = error.read_text().partition("\n") if error.is_file() else ("", "", "")
        code = int(said) if said.isdigit() else code  # a full disk can cost the exit code too: the log is on it
        if code == MISUSED:
            raise RecipeError(message)
        if code == OVER:
            raise RunFailed(f"{self.step.name}: {message}")
        if code == NO_ROOM:
            raise RunFailed(
                f"{self.step.name}: no room left to write{room_in(self.step.root)} ({message}); make room and run"
                " the same command again: finished shards stay"
            )
        return code, message

    def _charge(self, worker: WorkerHandle, code: int, message: str, follows: str) -> None:
        """Say of a death what it is charged to and what follows, or give up when no row can be blamed any more."""
        unit, uids = read_in_flight(worker.in_flight)
        how = f"ended by signal {-code}" if code < 0 else f"failed ({message or f'exit code {code}'})"
        blame = f"{len(uids)} rows in hand" if uids else "no row in hand"
        print(
            f"\n  {self.step.name}: a worker {how} at shard {unit or '?'}, {blame}; {follows}",
            flush=True,
            file=sys.stderr,
        )
        hopeless = not uids and self.crash_counts[f"shard {unit}"] >= DEATHS_OF_A_POISONED_ROW
        if hopeless or self.deaths > FRUITLESS_DEATHS + self.progress.rows // 10_000:
            raise RunFailed(f"{self.step.name}: {self.deaths} workers died, the last {how}; its log: {worker.log}")


def preflight(steps: Sequence[Step]) -> None:
    """Load the user's own weights once before any work, so that a file of the wrong shape stops the run at once.

    Weights inside the environment and stand-ins are known by their digests. Loaded where the units will be done: in a
    worker, or here. Raises RecipeError or WeightsError.
    """
    for step in steps:
        own = [
            file
            for file in step.weights()
            if file.path and not file.stand_in and not Path(file.path).is_relative_to(sys.prefix)
        ]
        if own and step.beam and not step.loaded_before:
            Supervisor(step, RunnerOptions(workers=1), Progress(step.name, 0)).check()
        elif own and not step.beam:
            step.open()


def do_units(step: Step, pending: Sequence[Unit], options: RunnerOptions, progress: Progress) -> None:
    """Do units of a step: in workers, or here where the step is one query or has little to do. Raises RunFailed or
    RecipeError."""
    if not pending:
        return
    if not step.is_small(pending):
        run = (Supervisor if options.runner == "local" else EngineRun)(step, options, progress)
        run.run(pending)
        return
    within = partial(do_within, options=options)
    worker = step.open() if step.beam else None
    for unit in pending:
        grouped = options.runner != "local"
        record = worker.run(unit, InFlight()) if worker is not None else step.do_unit(unit, within, grouped)
        step.journal.record(record)
        for note in step.outcome_notes():
            print(note, file=sys.stderr)
        progress.add(record)


def do_within(step: Step, pending: Sequence[Unit], options: RunnerOptions) -> None:
    """Do units of a derived step that another step asks for. Raises RunFailed or RecipeError."""
    do_units(step, pending, options, Progress(step.name, len(pending)))
