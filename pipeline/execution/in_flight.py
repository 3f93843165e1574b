"""Let a worker say which rows it has in hand, so that its death is charged to them and to no others."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from manifests.files import FormatError, parsing

T = TypeVar("T")

DEATHS_OF_A_POISONED_ROW = 3
"""Deaths after which a row gets `worker_died`; the last time it was alone in hand."""


class InFlight:
    """The rows that one worker process works on: a small file that outlives the process."""

    def __init__(self, path: Path | None = None, crash_counts: dict[str, int] | None = None) -> None:
        """`crash_counts` counts, per uid in hex, the workers that died with the row in hand in this invocation."""
        self.path, self.crash_counts = path, crash_counts or {}

    @contextmanager
    def working_on(self, unit: str, uids: Sequence[bytes]) -> Iterator[None]:
        """Hold rows of a unit while the block runs; no rows means the unit as a whole."""
        self._write({"unit": unit, "uids": [uid.hex() for uid in uids]})
        yield
        self._write({})

    def is_poisoned(self, uid: bytes) -> bool:
        """Tell whether the row has killed as many workers as one row may."""
        return self.crash_counts.get(uid.hex(), 0) >= DEATHS_OF_A_POISONED_ROW

    def alone(self, uid: bytes) -> bool:
        """Tell whether the row must be worked on alone, since workers died with it in hand."""
        return self.crash_counts.get(uid.hex(), 0) > 0

    def _write(self, held: dict[str, object]) -> None:
        if self.path is not None:
            self.path.write_text(json.dumps(held))


def read_in_flight(path: Path) -> tuple[str, list[str]]:
    """Return (unit, uids in hex) that a worker had in hand when it ended; ("", []) for none."""
    try:
        with parsing(path, "not what a worker has in hand"):
            held = json.loads(path.read_text() or "{}")
            return str(held.get("unit", "")), list(held.get("uids", []))
    except (OSError, FormatError):
        return "", []


def last_sign(path: Path) -> float:
    """Return the time of the worker's last sign of life, in seconds since the epoch; 0 for none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def batches(items: Iterable[tuple[bytes, T]], size: int, in_flight: InFlight) -> Iterator[list[tuple[bytes, T]]]:
    """Cut a stream of (uid, item) into batches of `size`; rows under suspicion come alone, after the others."""
    waiting: list[tuple[bytes, T]] = []
    suspects: list[tuple[bytes, T]] = []
    for uid, item in items:
        (suspects if in_flight.alone(uid) else waiting).append((uid, item))
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
    yield from ([suspect] for suspect in suspects)
