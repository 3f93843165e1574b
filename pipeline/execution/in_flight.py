"""Let a worker say which rows it has in hand, so that its death is charged to them and to no others."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from manifests.files import FormatError, parsing

T = TypeVar("T")

DEATHS_OF_A_POISONED_ROW = 3
"""Deaths after which a row gets `worker_died`; the last time it was alone in hand."""


MOST_BYTES = 4096
"""Bytes of a worker's word on how far it is that are read."""
MOST_LETTERS = 60  # of a host's name


@dataclass(frozen=True)
class Part:
    """How far a worker is in a unit: rows done, of how many, of a fetch the slowest hosts (name, URLs left, seconds),
    and the rows that it had done in other units."""

    unit: str
    done: int
    total: int
    slowest: tuple[tuple[str, int, float], ...] = ()
    before: int = 0


class InFlight:
    """The rows that one worker process works on: a small file that outlives the process."""

    def __init__(self, path: Path | None = None, crash_counts: dict[str, int] | None = None) -> None:
        """`crash_counts` counts, per uid in hex, the workers that died with the row in hand in this invocation."""
        self.path, self.crash_counts = path, crash_counts or {}

    def tell(self, part: Part, before: int | None = None) -> None:
        """Leave word for the driver how far a unit is, in a file beside the other: whole, or not there. `before`: what
        was done in other units, where the worker itself counts it."""
        if self.path is None:
            return
        if before is None:
            last = read_part(self.path)
            before = 0 if last is None else last.before if last.unit == part.unit else last.before + last.done
        path = part_path(self.path)
        scratch = path.with_suffix(".telling")
        scratch.write_text(json.dumps(asdict(replace(part, before=before))))
        scratch.replace(path)

    def told(self) -> int:
        """Return how many rows the worker that was here before has told of."""
        last = None if self.path is None else read_part(self.path)
        return 0 if last is None else last.before + last.done

    @contextmanager
    def working_on(self, unit: str, uids: Sequence[bytes]) -> Iterator[None]:
        """Hold rows of a unit while the block runs; no rows means the unit as a whole."""
        self.hold(unit, uids)
        yield
        self.hold("", ())

    def hold(self, unit: str, uids: Sequence[bytes]) -> None:
        """Have these rows in hand from now on, those that were before no more; without a unit none."""
        self._write({"unit": unit, "uids": [uid.hex() for uid in uids]} if unit else {})

    def is_poisoned(self, uid: bytes) -> bool:
        """Tell whether the row has killed as many workers as one row may."""
        return self.crash_counts.get(uid.hex(), 0) >= DEATHS_OF_A_POISONED_ROW

    def alone(self, uid: bytes) -> bool:
        """Tell whether the row must be worked on alone, since workers died with it in hand."""
        return self.deaths(uid) > 0

    def deaths(self, uid: bytes) -> int:
        """Return how many workers died with the row in hand."""
        return self.crash_counts.get(uid.hex(), 0)

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


def part_path(path: Path) -> Path:
    """Return where a worker says how far it is, beside the file of what it has in hand."""
    return path.with_suffix(".part")


def read_part(path: Path) -> Part | None:
    """Return how far a worker is, by the file of what it has in hand; None where it has not said."""
    try:
        with open(part_path(path), encoding="utf-8") as file, parsing(path, "not how far a worker is"):
            told = json.loads(file.read(MOST_BYTES))
            hosts = [(_shown(str(name)), int(left), float(seconds)) for name, left, seconds in told["slowest"]]
            return Part(str(told["unit"]), int(told["done"]), int(told["total"]), tuple(hosts), int(told["before"]))
    except (OSError, FormatError):
        return None


def _shown(name: str) -> str:
    """Return a name that a stranger chose as a terminal may show it."""
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in name[:MOST_LETTERS])


def last_sign(path: Path) -> float:
    """Return the time of the worker's last sign of life, in seconds since the epoch; 0 for none.

    While it has no row in hand, its word on how far it is counts too: a fetch that waits for its turn at a site, which
    others have, tells that once a second. With a row in hand it does not: the thread that fetches would tell on while
    the one that decodes hangs.
    """
    waits = read_in_flight(path) == ("", [])
    return max(_changed(path), _changed(part_path(path)) if waits else 0.0)


def _changed(path: Path) -> float:
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
