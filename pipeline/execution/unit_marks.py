"""Let a worker on an engine say which rows it has in hand, in the run folder, so that its end is charged to them.

Nobody starts workers there but the engine, and nobody of ours sees them end: the next attempt at the unit finds the
mark of the one before, `logs/marks/STEP/UNIT.ATTEMPT.json`, and tells whether that attempt has ended without taking it
away. A mark is written by its own attempt alone and is never counted up: however many attempts look at it, and at
once, each death is one. An attempt that lives is charged with nothing: one of this machine lives as long as its
process, one of another as long as it beats; clocks may differ by SILENT_S less BEAT_S.

As long as nothing is known to have died at a unit its mark names no rows: a step that takes them one by one would write
to the store for each. After a death each batch is noted, so that a row dies once more than on this machine, where notes
cost nothing: once unseen, then in a batch, then alone, and alone again. What a worker raises, and what hangs, is known
to the row at once.
"""

import json
import os
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from captioning.captioner import CaptionerError
from manifests.files import FormatError, finished, out_of_room, parsing, write_bytes
from manifests.publishing import RunOver, may_publish
from manifests.weights import WeightsError
from pipeline.execution.in_flight import DEATHS_OF_A_POISONED_ROW, InFlight, Part
from pipeline.execution.process_identity import Process, is_gone, machine, this_process
from pipeline.execution.run_token import current_token, holding
from pipeline.recipes.schema import RecipeError

BEAT_S = 10.0
"""Seconds between two signs of life of an attempt."""
SILENT_S = 60.0
"""Seconds without one after which an attempt on another machine counts as dead."""
BLAMELESS = (RunOver, RecipeError, WeightsError, CaptionerError)
"""What a worker raises that is no row's fault."""
STALLED = 76
"""Exit code of a worker that was at the same rows for too long."""


@dataclass(frozen=True)
class Mark:
    """What an attempt at a unit says of itself. `rows`: uids in hex, None where they are not noted; `changed`: when it
    took others last, or told how far it is; `beat`: when this was written; seconds since the epoch."""

    unit: str
    token: str
    process: Process
    rows: tuple[str, ...] | None = None
    failed: str = ""
    changed: float = 0.0
    beat: float = 0.0
    part: Part | None = None

    @classmethod
    def read(cls, path: Path) -> "Mark | None":
        """Return the mark in a file, None where it is gone or not one."""
        try:
            with parsing(path, "not a mark"):
                value = json.loads(path.read_bytes())
                part, process = value.pop("part"), Process.of(value.pop("process"))
                rows = value.pop("rows")
                if process is None:
                    return None
                told = None if part is None else Part(**{**part, "slowest": tuple(map(tuple, part["slowest"]))})
                return cls(process=process, rows=None if rows is None else tuple(rows), part=told, **value)
        except (OSError, FormatError):
            return None

    @property
    def dead(self) -> bool:
        """Tell whether the attempt ended without taking its mark away."""
        if self.failed or is_gone(self.process):
            return True
        seen = self.process.machine == machine() and "?" not in self.process.machine
        return not seen and time.time() - self.beat > SILENT_S


def marks_folder(root: Path, step: str) -> Path:
    """Return where the marks of a step lie."""
    return root / "logs" / "marks" / step


def marks_of(root: Path, step: str) -> list[Mark]:
    """Return the marks that attempts of the run which holds the folder have left in a step."""
    folder, token = marks_folder(root, step), current_token(root)
    found = [Mark.read(path) for path in finished(folder, "*.json")] if folder.is_dir() else []
    return [mark for mark in found if mark is not None and mark.token == token]


def last_sign_of(root: Path, step: str) -> float:
    """Return when a worker of the step took other rows last, by its own clock; 0 where none is at work."""
    return max((mark.changed for mark in marks_of(root, step)), default=0.0)


def in_hand(root: Path, step: str) -> dict[str, list[str]]:
    """Return unit -> uids in hex of the rows that attempts, alive or dead, are noted to have in hand."""
    held: dict[str, list[str]] = {}
    for mark in marks_of(root, step):
        held.setdefault(mark.unit, []).extend(mark.rows or ())
    return held


def can_blame(root: Path, step: str) -> bool:
    """Tell whether an attempt has died in a way that the next one learns from: not where a unit has killed as many as
    one row may, each time without a row in hand."""
    dead = [mark for mark in marks_of(root, step) if mark.dead]
    rowless = Counter(mark.unit for mark in dead if mark.rows == ())
    return bool(dead) and max(rowless.values(), default=0) < DEATHS_OF_A_POISONED_ROW


def clear_marks(root: Path, step: str) -> None:
    """Forget all deaths of a step: the driver does at the start and at the end of an invocation, so that the next one
    tries every row again."""
    folder = marks_folder(root, step)
    for path in folder.glob("*.json") if folder.is_dir() else ():
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        with suppress(OSError):
            folder.rmdir()


def charged(dead: Sequence[Mark]) -> dict[str, int]:
    """Return uid in hex -> deaths of one unit's attempts with the row in hand; a row that never was there alone has one
    less than poisons it."""
    deaths = Counter(uid for mark in dead for uid in mark.rows or ())
    alone = {mark.rows[0] for mark in dead if mark.rows is not None and len(mark.rows) == 1}
    return {uid: count if uid in alone else min(count, DEATHS_OF_A_POISONED_ROW - 1) for uid, count in deaths.items()}


@dataclass(frozen=True)
class Place:
    """Where marks of a step are written: the run folder, the step, the run's token. `stall_s`: seconds at the same rows
    after which a worker ends itself; 0: none."""

    root: Path
    step: str
    token: str
    stall_s: float = 0.0


class MarkedUnit(InFlight):
    """One attempt at a unit: a context that holds its mark."""

    def __init__(self, place: Place, unit: str) -> None:
        dead = [mark for mark in marks_of(place.root, place.step) if mark.unit == unit and mark.dead]
        super().__init__(None, charged(dead))
        self.place, self.unit = place, unit
        self.noted = bool(dead)
        """Whether each batch is: something has died here."""
        self.file = marks_folder(place.root, place.step) / f"{unit}.{secrets.token_hex(8)}.json"
        self.held: tuple[str, ...] = ()
        self.changed = time.time()
        self.part: Part | None = None
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._over: RunOver | None = None

    def __enter__(self) -> Self:
        self._say()
        _at_work.add(self)
        threading.Thread(target=self._beats, name=f"beats of {self.unit}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the mark away, or leave it with the rows in hand where one of them may be to blame."""
        if error is None or isinstance(error, BLAMELESS) or out_of_room(error):
            self.let_go()
            return
        with suppress(OSError, RunOver):
            self._fail(f"{type(error).__name__}: {error}"[:200])

    def let_go(self) -> None:
        """Take the mark away: nobody is to blame for the end of this attempt."""
        with self._turn, suppress(OSError, RunOver):
            self._end()
            with holding(self.place.root, self.place.token):
                may_publish()
                self.file.unlink(missing_ok=True)

    def tell(self, part: Part, before: int | None = None) -> None:
        """Leave word for the driver how far the unit is, with the next beat."""
        self.part = part
        if not self.held:
            self.changed = time.time()

    def hold(self, unit: str, uids: Sequence[bytes]) -> None:
        """Have these rows in hand from now on. Raises RunOver where the run has ended meanwhile."""
        if unit and self._over is not None:
            raise self._over
        rows = tuple(uid.hex() for uid in uids)
        others = rows != self.held
        self.held, self.changed = rows, time.time()
        if others and self.noted:
            self._say()

    def _fail(self, how: str) -> None:
        with self._turn:
            self._end()
            self._publish(self.held, how)

    def _end(self) -> None:
        self._ended.set()
        _at_work.discard(self)

    def _say(self) -> None:
        with self._turn:
            if not self._ended.is_set():
                self._publish(self.held if self.noted else None)

    def _publish(self, rows: tuple[str, ...] | None, failed: str = "") -> None:
        mark = Mark(
            self.unit, self.place.token, this_process(), rows, failed, self.changed, beat=time.time(), part=self.part
        )
        with holding(self.place.root, self.place.token):
            write_bytes(self.file, json.dumps(asdict(mark)).encode())

    def _beats(self) -> None:
        """Say that this attempt lives, until it has ended or the run is over; end the process where it hangs."""
        while not self._ended.wait(BEAT_S):
            stalled = time.time() - self.changed
            if self.place.stall_s and stalled > self.place.stall_s:
                self._hangs(stalled)
            try:
                self._say()
            except RunOver as over:
                self._over = over
                return
            except OSError:
                continue  # the store's; the next one may come through

    def _hangs(self, seconds: float) -> None:
        says = f"at the same rows for {seconds:.0f} s"
        print(f"{self.place.step} {self.unit}: {says}; this worker ends", file=sys.stderr, flush=True)
        with suppress(OSError, RunOver):
            self._fail(says)
        os._exit(STALLED)


_at_work: set[MarkedUnit] = set()


def let_go_all() -> None:
    """Take the marks of this process away: it was asked to end, and no row is to blame."""
    for marked in list(_at_work):
        marked.let_go()
