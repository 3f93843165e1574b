"""Hash files: one, one that is asked for again and again, or many at once in threads, at the disk's speed and stopped
at once when told to."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from manifests.regular_files import open_plain

BLOCK = 1 << 20
"""Bytes read and hashed at a time: hashlib lets other threads run meanwhile."""


WAITING = 1024
"""Files that wait for a thread, or to be asked for."""
READERS = 16
"""Threads that measure what lies in a store: most of the time they wait for its answers."""
REMEMBERED = 1024
"""Digests that a process remembers: some hundred bytes each."""


def sha256_file(path: str | Path) -> str:
    """Return the sha256 of a plain file in hex, reading 1 MiB at a time. Raises OSError."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cached_sha256(path: str | Path) -> str:
    """Return the sha256 of a plain file in hex; a process reads a file again only once its size, its time of change or
    its inode is another. Raises OSError.

    For weights and lists, which are gigabytes, are asked for many times and stay while a run uses them. What a run has
    written itself is read anew with `sha256_file`: a check must not trust a file's time.
    """
    facts = os.stat(path)
    return _remembered(os.fspath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=REMEMBERED)
def _remembered(path: str, size: int, changed_ns: int, inode: int) -> str:
    return sha256_file(path)


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
    digest, size = hashlib.sha256(), 0
    try:
        with open_plain(path, buffering=0) as file:
            block = bytearray(min(BLOCK, file.seek(0, os.SEEK_END) + 1))  # most files are far below a block
            file.seek(0)
            view = memoryview(block)
            while count := file.readinto(block):  # type: ignore[attr-defined]
                digest.update(view[:count])
                size += count
                watch.add(count)
    except OSError as error:
        return Measured(error=error.strerror or str(error))
    watch.add(0, files=1)
    return Measured(digest.hexdigest(), size)


def measure_all(paths: Iterable[Path], jobs: int, watch: Watch) -> Iterator[tuple[Path, Measured]]:
    """Measure files in `jobs` threads (0: one per core); yield each with what it is, in their order, some WAITING ahead
    of what is asked for. An interrupt, and an end of the asking, stop them within a block each."""
    workers = jobs or len(os.sched_getaffinity(0))
    waiting: deque[tuple[Path, Future[Measured]]] = deque()
    pool = ThreadPoolExecutor(workers)
    is_done = False

    def _result() -> tuple[Path, Measured]:
        path, future = waiting.popleft()
        while not wait([future], timeout=0.2).done:
            watch.show()
        watch.show()
        return path, future.result()

    try:
        for path in paths:
            waiting.append((path, pool.submit(copy_context().run, measure, path, watch)))  # with its listings
            if len(waiting) == WAITING:
                yield _result()
        while waiting:
            yield _result()
        is_done = True
    finally:
        if not is_done:
            watch.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 for one that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
