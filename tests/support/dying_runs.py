"""An object store in this process's memory that a run dies over: between any two of its operations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from manifests import store_requests
from pipeline.execution.process_identity import Process, machine

CHANGES = ("put_file", "pipe_file", "cp_file", "rm_file", "rm")
"""Methods of the file system that change something."""
GONE = Process(machine(), 2**22 + 1, 1)
"""A process that has ended: numbers end below that."""


class Killed(BaseException):
    """What nothing catches: the end of a process."""


class Dying:
    """Counts the operations that change the store; dies before the one of a number, and at each one after it."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.done = at, 0

    def before(self) -> None:
        """Count an operation, or die."""
        if self.at is not None and self.done >= self.at:
            raise Killed
        self.done += 1


@contextmanager
def dying(at: int | None = None) -> Iterator[Dying]:
    """Let whoever works on memory:// in the block be killed before its operation number `at` (None: only count).

    What its own `finally` would clean up in the store stays, as behind a kill; its lease is that of a process which
    has ended.
    """
    counting = Dying(at)
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(MemoryFileSystem, name, _counted(getattr(MemoryFileSystem, name), counting))
        patch.setattr("pipeline.execution.lease.this_process", lambda: GONE)
        yield counting


def _counted(plain: Callable[..., object], counting: Dying) -> Callable[..., object]:
    def method(*args: object, **options: object) -> object:
        counting.before()
        return plain(*args, **options)

    return method


def kept() -> dict[str, bytes]:
    """Return all that lies in memory."""
    return {name: file.getvalue() for name, file in MemoryFileSystem.store.items()}


def restored(objects: dict[str, bytes]) -> None:
    """Let nothing but these lie in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    for name, data in objects.items():
        store_requests.filesystem("memory").pipe_file(name, data)
