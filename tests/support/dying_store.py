"""Every state that a store in memory goes through: what a process that dies between any two operations leaves there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manifests.remote_path import RemotePath
from manifests.store_requests import StoreError, filesystem

CHANGING = ("put_file", "pipe_file", "cp_file", "rm_file")
State = dict[str, bytes]
"""Name in the run -> bytes of the object."""


def state(root: Path) -> State:
    """Return what the store holds of a run, but for who holds it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] not in (".lease", ".run-token")
    }


def restore(root: Path, wanted: State) -> None:
    """Let the store hold just this of a run."""
    assert isinstance(root, RemotePath)
    root.drop()
    for name, data in wanted.items():
        (root / name).write_bytes(data)


@contextmanager
def every_state(root: Path) -> Iterator[list[State]]:
    """Yield a list that grows by the state of the store after each operation that changes it."""
    files = filesystem("memory")
    start = f"{root.key}/"  # type: ignore[attr-defined]
    states: list[State] = []

    def now() -> State:
        there = {name[len(start) :]: file.getvalue() for name, file in files.store.items() if name.startswith(start)}
        return {name: data for name, data in there.items() if not name.startswith((".lease/", ".run-token"))}

    with _watched(lambda: states.append(now())):
        yield states


@contextmanager
def failing_at(number: int) -> Iterator[list[int]]:
    """Let the operation of this number, counted from 0, fail to the end, and those before and after it be done; yield a
    list of what was done."""
    done: list[int] = []

    def note() -> None:
        done.append(len(done))
        if len(done) == number:
            raise StoreError("as the test wants it")

    with _watched(note):
        yield done


@contextmanager
def _watched(after: Callable[[], None]) -> Iterator[None]:
    kind, one_at_a_time = type(filesystem("memory")), threading.RLock()
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGING:
            real = getattr(kind, name)

            def called(self, *args, _real=real, **options):
                with one_at_a_time:
                    result = _real(self, *args, **options)
                    after()
                    return result

            patch.setattr(kind, name, called)
        yield
