"""Measure many files at once: size and sha256 at the disk's speed, in threads, and stop at once when told to."""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from manifests.regular_files import open_plain

BLOCK = 1 << 20
"""Bytes read and hashed at a time: hashlib lets other threads run meanwhile."""


@dataclass(frozen=True)
class Measured:
    """A file as it is now: sha256 in hex and bytes, or the error that kept it from being read."""

    sha256: str = ""
    bytes: int = 0
    error: str = ""


class Stopped(RuntimeError):
    """The measuring was told to stop."""


@dataclass
class Watch:
    """Counts what was measured; `show` is called a few times a second and may print it."""

    total: int = 0
    done: int = 0
    files: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def add(self, count: int, files: int = 0) -> None:
        """Count bytes, and files that are finished. Raises Stopped when the run was told to stop."""
        if self.stopped.is_set():
            raise Stopped
        with self.lock:
            self.done, self.files = self.done + count, self.files + files

    def show(self, last: bool = False) -> None:
        """Print nothing: the command line has its own."""


def measure(path: Path, watch: Watch) -> Measured:
    """Return a file's size and sha256."""
    digest, size, block = hashlib.sha256(), 0, bytearray(BLOCK)
    view = memoryview(block)
    try:
        with open_plain(path, buffering=0) as file:
            while count := file.readinto(block):  # type: ignore[attr-defined]
                digest.update(view[:count])
                size += count
                watch.add(count)
    except OSError as error:
        return Measured(error=error.strerror or str(error))
    watch.add(0, files=1)
    return Measured(digest.hexdigest(), size)


def measure_all(paths: Sequence[Path], jobs: int, watch: Watch) -> Mapping[Path, Measured]:
    """Measure files in `jobs` threads (0: one per core). An interrupt stops them within a block each."""
    workers = jobs or len(os.sched_getaffinity(0))
    found: dict[Path, Measured] = {}
    watch.total += sum(_size(path) for path in paths)
    pool = ThreadPoolExecutor(workers)
    is_done = False
    try:
        waiting: dict[Future[Measured], Path] = {pool.submit(measure, path, watch): path for path in paths}
        left = set(waiting)
        while left:
            done, left = wait(left, timeout=0.2)
            found.update({waiting[future]: future.result() for future in done})
            watch.show()
        is_done = True
    finally:
        if not is_done:
            watch.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
