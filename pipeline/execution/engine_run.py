"""Run a step's units on an engine: hand a job over, watch it, hand over again what a failed one has left."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from manifests.store import scratch_of
from pipeline.execution.backends import EMBEDDED, Backend, RunnerOptions
from pipeline.execution.engine import endpoint_of
from pipeline.execution.engine_causes import Cause, cause_of
from pipeline.execution.engine_jobs import JobNote, end_job, forget, keep, new_name
from pipeline.execution.engine_watch import Limits, Watch
from pipeline.execution.environment import worker_environment
from pipeline.execution.errors import RunFailed
from pipeline.execution.flink_rest import FlinkRest
from pipeline.execution.forkserver import WorkerProcess, forkserver
from pipeline.execution.gathering import Gathering
from pipeline.execution.in_flight import DEATHS_OF_A_POISONED_ROW
from pipeline.execution.java import answers
from pipeline.execution.job import DONE, Job
from pipeline.execution.job_service import Unreachable
from pipeline.execution.progress import Progress
from pipeline.execution.run_token import current_token
from pipeline.execution.shuffle import Gathered
from pipeline.execution.step import Step, Unit
from pipeline.execution.unit_marks import can_blame, clear_marks, marks_of
from pipeline.execution.worker_signs import clear_signs, last_beat_of
from pipeline.recipes.schema import RecipeError

FRUITLESS_FAILURES = 12
"""Failures in one step, beyond one per 10,000 rows done, after which the run gives up."""
NEVER_BEGUN = 2
"""Failures in a row, before any worker gave a sign of life, after which it does too."""
TICK_S = 0.1
SLOT_LOOK_S = 1.0
SERVER_S = 10.0
"""Seconds that a job server may be away."""
PORTABLE = Backend.beam_runner
MOST_LOG = 400_000
"""Bytes of the client's log that a cause is looked for in."""
FINISHED = "finished shards stay: run the same command again"


@dataclass
class Client:
    """The process that hands a job over and waits for it; with threads of the run as workers it is they."""

    process: WorkerProcess
    log: Path
    began: int
    """Bytes that its log held before."""

    def said(self) -> str:
        """Return what it wrote."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(self.began, file.seek(0, os.SEEK_END) - MOST_LOG))
            return file.read().decode(errors="replace")
        return ""


class EngineRun:
    """Keeps an engine on a step's units until every unit has its record."""

    def __init__(self, step: Step, options: RunnerOptions, progress: Progress) -> None:
        self.step, self.options, self.progress = step, options, progress
        self.backend = options.backend
        self.gathering = Gathering(step, progress)
        self.folder = scratch_of(step.root) / "logs" / "workers"
        self.failures = self.unbegun = self.blameless = 0

    def run(self, units: Sequence[Unit]) -> None:
        """Return when all units are done. Raises RunFailed or RecipeError; ends its job on the way out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pending = {unit.name: unit for unit in units}
        self._forget()
        try:
            while pending:
                left = len(pending)
                cause, begun = self._hand_over(pending)
                if pending:
                    self._weigh_failure(cause, begun, left, pending)
        finally:
            self.progress.state, self.progress.parts = "", ()
            self._forget()

    def _forget(self) -> None:
        """Take away what workers of the step said: the next invocation tries every row again."""
        clear_marks(self.step.root, self.step.name)
        clear_signs(self.step.root, self.step.name)

    def _hand_over(self, pending: dict[str, Unit]) -> tuple[Cause, bool]:
        """Let the engine do what is pending; return why it did not, and whether a worker had begun."""
        width = self._width(len(pending))
        endpoint = self._endpoint()
        own = self.backend.server() is not None
        note = JobNote(new_name(self.step.name), self.step.name, self.backend.name, endpoint, self.backend.rest, own)
        with self._handed(keep(self.step.root, note), width, list(pending.values())) as client:
            limits = Limits(self.backend.config.start_s, self.options.stall_s)
            watch = Watch(self.step.root, note, limits, self._last_sign)
            while client.process.poll() is None:
                self._turn(client, watch, pending)
        self.gathering.collect(pending)
        watch.heed()
        if client.process.poll() == DONE:
            return Cause("the engine says that all is done", "silent"), True
        return self._cause(client, watch), watch.alive

    def _turn(self, client: Client, watch: Watch, pending: dict[str, Unit]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.process.wait(TICK_S)
        self.gathering.collect(pending, now=False)
        watch.look()
        self.progress.state = watch.shown()
        self.progress.show()
        if why := watch.overdue():
            raise RunFailed(f"{self.step.name}: {why}; the job is cancelled; {FINISHED}")

    @contextlib.contextmanager
    def _handed(self, note: JobNote, width: int, units: list[Unit]) -> Iterator[Client]:
        """Start the client of a job; end both, whatever happens."""
        client: Client | None = None
        try:
            client = self._start(note, width, units)
            yield client
        finally:
            ended = client is not None and client.process.poll() == DONE
            if client is not None:
                client.process.stop()
                shutil.rmtree(client.log.with_suffix(".tmp"), ignore_errors=True)
            if ended and note.runner == "dataflow":  # its client waits for the job, and nobody else is asked here
                forget(self.step.root, note)
            else:
                self._end(note)

    def _start(self, note: JobNote, width: int, units: list[Unit]) -> Client:
        stem = (self.folder / f"{self.step.name}-0").resolve()
        log, scratch = stem.with_suffix(".log"), stem.with_suffix(".tmp")
        runtime = replace(self.step.runtime, lanes=width or self.options.parallelism, lane=0, budget="")
        job = Job(
            f"{type(self.step).__module__}:{type(self.step).__qualname__}",
            str(self.step.root),
            self.step.recipe.plain(),
            [asdict(unit) for unit in units],
            str(stem.with_suffix(".in_flight")),
            {},
            asdict(runtime),
            self.options.runner,
            self.backend.beam(note.endpoint, note.name, width),
            current_token(self.step.root),
            self.options.stall_s,
        )
        job.write(stem.with_suffix(".job"))
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        began = log.stat().st_size if log.exists() else 0
        environment = {**worker_environment(0), "TMPDIR": str(scratch)}
        return Client(forkserver().start(stem.with_suffix(".job"), log, environment), log, began)

    def _endpoint(self) -> str:
        """Return where the job is handed over: a job server of our own is started anew where it has ended; another one
        is waited for, since whoever keeps it may start it again."""
        endpoint = endpoint_of(self.backend, self.step.root)
        end = time.monotonic() + SERVER_S
        while endpoint != EMBEDDED and self.backend.beam_runner == PORTABLE and not answers(endpoint):
            if time.monotonic() > end:
                raise RunFailed(
                    f"{self.step.name}: nobody answers at {endpoint} any more, where jobs are handed over;"
                    f" start the job server there again; {FINISHED}"
                )
            self.progress.state = "waiting for the job server"
            self.progress.show()
            time.sleep(SLOT_LOOK_S)
        return endpoint

    def _width(self, units: int) -> int:
        """Return how many units are done at once: as asked, or as many slots as are free; wait for the first one.

        Raises RunFailed where there is none for too long: Flink itself would let the job wait for ever.
        """
        asked = self.backend.config.parallelism
        if not self.backend.rest:
            return asked
        end = time.monotonic() + self.backend.config.start_s
        while not (free := self._free_slots(end)):
            self.progress.state = "waiting for a free slot"
            self.progress.show()
            time.sleep(SLOT_LOOK_S)
        return min(asked or free, free, free if isinstance(self.step, Gathered) else units)

    def _free_slots(self, end: float) -> int:
        try:
            has = FlinkRest(self.backend.rest).cluster()
        except Unreachable as error:
            if time.monotonic() > end:
                raise RunFailed(f"{self.step.name}: {error}; {FINISHED}") from error
            return 0
        if not has.free and time.monotonic() > end:
            raise RunFailed(
                f"{self.step.name}: Flink at {self.backend.rest} has had no free slot for"
                f" {self.backend.config.start_s:.0f} s (runner.start_s): {has.slots} slots in {has.taskmanagers}"
                f" TaskManagers; start another TaskManager; {FINISHED}"
            )
        return has.free

    def _end(self, note: JobNote) -> None:
        """Cancel the job where it still runs, and wait for its end; keep its note where nobody can be asked."""
        try:
            found = False if note.endpoint == EMBEDDED else end_job(note)
        except Unreachable as error:
            if not note.ends_with_client:
                print(
                    f"\n  {self.step.name}: the job {note.name} may still run on {note.runner} ({error}); the next"
                    " command that takes this run folder asks again",
                    file=sys.stderr,
                )
                return
            found = False
        forget(self.step.root, note)
        if found:
            print(f"\n  {self.step.name}: the job on {note.runner} is cancelled, and has ended", file=sys.stderr)

    def _last_sign(self) -> float:
        """Return when the workers last gave a sign of life: loaded or moved, took other rows, put a record."""
        marks = marks_of(self.step.root, self.step.name)
        self.progress.parts = [mark.part for mark in marks if mark.part is not None]
        beat = last_beat_of(self.step.root, self.step.name)
        return max(beat, self.gathering.last, *(mark.changed for mark in marks))

    def _cause(self, client: Client, watch: Watch) -> Cause:
        """Return why a job failed: from what the client wrote, else from Flink."""
        code = client.process.poll() or 0
        if code < 0:  # where workers are threads of the client, it is one of them
            return Cause(f"the process that handed it over ended by signal {-code}")
        said = cause_of(client.said())
        if said.known or not (watch.note.rest and watch.note.engine):
            return said
        with contextlib.suppress(Unreachable):
            told = cause_of(FlinkRest(watch.note.rest).why(watch.note.engine))
            return told if told.known else said
        return said

    def _weigh_failure(self, cause: Cause, begun: bool, left: int, pending: dict[str, Unit]) -> None:
        """Return where the rest is to be handed over again; raise RunFailed or RecipeError where that is no use."""
        name, log = self.step.name, self.folder / f"{self.step.name}-0.log"
        if cause.refused == "silent":
            raise RunFailed(
                f"{name}: the engine ended the job without a record of {len(pending)} shards"
                f" ({', '.join(sorted(pending)[:5])}): its workers see another folder than {self.step.root}"
            )
        if cause.refused in ("RecipeError", "WeightsError", "CaptionerError"):
            raise RecipeError(cause.says)
        if cause.refused:
            raise RunFailed(f"{name}: {cause.says}")
        self.failures += 1
        fruitful = len(pending) < left
        self.unbegun = 0 if begun else self.unbegun + 1
        self.blameless = 0 if fruitful or can_blame(self.step.root, name) else self.blameless + 1
        hopeless = self.unbegun >= NEVER_BEGUN or self.blameless >= DEATHS_OF_A_POISONED_ROW
        if hopeless or self.failures > FRUITLESS_FAILURES + self.progress.rows // 10_000:
            raise RunFailed(f"{name}: {self.failures} jobs failed, the last: {cause.says}; its log: {log}; {FINISHED}")
        print(
            f"\n  {name}: the job on {self.backend.name} failed ({cause.says}); handing over the {len(pending)} shards"
            " that are left",
            file=sys.stderr,
            flush=True,
        )
