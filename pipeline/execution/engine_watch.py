"""Watch a job on its engine: what it waits for, and when it has waited too long."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.execution.engine_jobs import JobNote, ids_of, keep
from pipeline.execution.flink_rest import FlinkJob, FlinkRest
from pipeline.execution.job_service import BeamJob, Unreachable

LOOK_S = 2.0
"""Seconds between two looks at the engine, at least."""
GRACE_S = 120.0
"""Seconds beyond the limit of a silence: a worker that hangs ends itself at the limit (unit_marks.py)."""
LOOKS = 20
"""A look takes at most one part in so many of the driver's time."""
HANDED, SLOTS, AGAIN, WORKERS, RUNNING = (
    "handing the job over",
    "waiting for slots",
    "restarting",
    "starting workers",
    "running",
)


@dataclass(frozen=True)
class Limits:
    """Seconds until workers must have begun, and between two signs of life."""

    start_s: float
    stall_s: float


@dataclass
class Watch:
    """Looks at one job. `sign` returns when its workers last gave a sign of life, by their clocks."""

    root: Path
    note: JobNote
    limits: Limits
    sign: Callable[[], float]
    state: str = HANDED
    restarts: int = 0
    moved: float = field(default_factory=time.monotonic)
    """When its state, or the workers' last sign of life, last was another."""
    look_at: float = 0.0
    before: float = 0.0
    """The last sign before this job."""
    seen: float = 0.0

    def __post_init__(self) -> None:
        self.before = self.seen = self.sign()

    def look(self) -> None:
        """Look at the workers' signs and at the engine, if it is time to; keep the ids that the job has got by now."""
        began = time.monotonic()
        if began < self.look_at:
            return
        self.heed()
        with contextlib.suppress(Unreachable):  # the client says so too, or goes on
            note, beam, flink = ids_of(self.note)
            if note != self.note:
                self.note = keep(self.root, note)
            self._move(self._state(beam, flink))
        self.look_at = time.monotonic() + max(LOOK_S, LOOKS * (time.monotonic() - began))

    def heed(self) -> None:
        """Take in the workers' last sign of life."""
        seen = self.sign()
        if seen > self.seen:
            self.seen, self.moved = seen, time.monotonic()

    @property
    def alive(self) -> bool:
        """Tell whether a worker has given a sign of life since the job was handed over."""
        return self.seen > self.before

    def _state(self, beam: BeamJob | None, flink: FlinkJob | None) -> str:
        if flink is not None and flink.state in ("RESTARTING", "FAILING"):
            return AGAIN
        if flink is not None and flink.waits_for_slots:
            return SLOTS
        if self.alive:
            return RUNNING
        handed = flink is not None if self.note.rest else beam is not None and beam.state == "RUNNING"
        return WORKERS if handed else HANDED

    def _move(self, state: str) -> None:
        if state == AGAIN and self.state != AGAIN:
            self.restarts += 1
        if state != self.state and not {state, self.state} <= {HANDED, SLOTS, AGAIN}:
            self.moved = time.monotonic()
        self.state = state

    def shown(self) -> str:
        """Return the state for the progress line."""
        if self.state == AGAIN:
            return f"{AGAIN} ({self.restarts})"
        return "" if self.state == RUNNING else self.state

    def overdue(self) -> str:
        """Return why the job has waited too long, with the remedy; nothing while it has not."""
        waited = time.monotonic() - self.moved
        running = self.state == RUNNING
        limit = self.limits.stall_s if running else self.limits.start_s
        if waited < limit + (GRACE_S if running else 0.0):
            return ""
        key = "runner.stall_s" if self.state == RUNNING else "runner.start_s"
        return f"{self._why()} ({waited:.0f} s; {key} = {limit:.0f})"

    def _why(self) -> str:
        if self.state == RUNNING:
            return "no worker has given a sign of life"
        if self.state == WORKERS:
            return (
                "no worker has begun: the engine has the job and no environment answers; look into the logs of the"
                " engine and of its worker pools"
            )
        if self.state == HANDED:
            return "the engine has not begun the job; look into the job server's log"
        try:
            has = FlinkRest(self.note.rest).cluster()
        except Unreachable as error:
            return f"the job waits for slots, and Flink cannot be asked ({error})"
        return (
            f"the job waits for slots: Flink has {has.free} free ones of {has.slots} in {has.taskmanagers}"
            " TaskManagers; start another TaskManager, or ask for fewer with --workers"
        )
