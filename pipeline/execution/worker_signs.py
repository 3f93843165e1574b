"""Let a worker on an engine say that it lives while it has no rows in hand: while it loads, or moves rows of a shuffle.

What it has in hand stands in unit_marks.py. Here a file per process and task is written anew every few seconds, so that
the driver can tell a long load from a worker that never came.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.files import FormatError, finished, parsing, write_bytes
from manifests.publishing import RunOver
from manifests.store import drop
from pipeline.execution.run_token import holding

BEAT_S = 10.0
"""Seconds between two signs."""
LOAD_S = 900.0
"""Seconds that a worker may take to load its models; then it is silent, and the driver's patience begins."""


@contextmanager
def alive(root: Path, step: str, token: str, seconds: float = float("inf")) -> Iterator[None]:
    """Give signs of life for a step while the block runs, for `seconds` at most; without a token none."""
    if not token:
        yield
        return
    file, ended = signs_folder(root, step) / f"{secrets.token_hex(8)}.json", threading.Event()

    def say() -> None:
        with holding(root, token):
            write_bytes(file, json.dumps({"at": time.time()}).encode())

    def go_on() -> None:
        end = time.monotonic() + seconds
        while not ended.wait(BEAT_S) and time.monotonic() < end:
            try:
                say()
            except RunOver:
                return
            except OSError:
                continue  # the store's; the next one may come through

    say()
    thread = threading.Thread(target=go_on, name=f"signs of {step}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            file.unlink(missing_ok=True)


def signs_folder(root: Path, step: str) -> Path:
    """Return where the signs of a step lie."""
    return root / "logs" / "signs" / step


def last_beat_of(root: Path, step: str) -> float:
    """Return when a worker of the step last said that it lives, by its own clock; 0 where none does."""
    folder = signs_folder(root, step)
    said = [_read(path) for path in finished(folder, "*.json")] if folder.is_dir() else []
    return max(said, default=0.0)


def clear_signs(root: Path, step: str) -> None:
    """Forget what workers have said; those that were killed left it."""
    folder = signs_folder(root, step)
    if folder.is_dir():
        drop(folder)


def _read(path: Path) -> float:
    try:
        with parsing(path, "no sign of life"):
            return float(json.loads(path.read_bytes())["at"])
    except (OSError, FormatError):
        return 0.0
