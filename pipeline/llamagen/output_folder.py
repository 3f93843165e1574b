"""Make a folder beside the one that is there, and let it take that one's place only when it is whole."""

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from manifests.files import TEMPORARY
from pipeline.recipes.schema import RecipeError

FEW = 500
"""Files up to which each is waited for by itself."""


@contextlib.contextmanager
def replacing(folder: Path, note: str) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends well; what stood there goes then, whole.

    A process that is killed leaves `folder` as it was (or, between the two renames at the end, nothing there), and its
    own leftover is swept by the next one. `note`: the file by which a folder shows that it was made so. Raises
    RecipeError before any work for a folder that holds files without it, and for a mount point.
    """
    folder = folder.absolute()
    check_replaceable(folder, note)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    staging = folder.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{folder.name}")
    staging.mkdir()
    lock = _hold(staging)
    try:
        yield staging
        _flush(staging)
        _swap(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def put(path: Path | str, data: bytes) -> None:
    """Write a file of a folder that `replacing` yields: it waits for the disk once, for all files together."""
    try:
        file = open(path, "wb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(path, "wb", buffering=0)  # noqa: SIM115
    with file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _flush(folder: Path) -> None:
    """Wait until the disk holds every file: one by one, or for all that the machine has to write where there are many,
    since each that is waited for by itself costs the disk a turn."""
    every = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    paths = list(itertools.islice(every, FEW + 1))
    if len(paths) > FEW:
        os.sync()
        return
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def check_replaceable(folder: Path, note: str) -> None:
    """Raise RecipeError where `folder` is no folder, a mount point, or holds files but no `note`."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir() or folder.is_mount():
        raise RecipeError(f"{str(folder)!r} is a file, a link or a mount point; name a folder inside it, or another")
    if any(folder.iterdir()) and not (folder / note).is_file():
        raise RecipeError(
            f"{str(folder)!r} holds files, and no {note} that says that they may be replaced; name another folder"
        )


def _hold(staging: Path) -> int:
    """Lock the folder itself: the system lets go when the process ends, however it ends."""
    lock = os.open(staging, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _sweep(folder: Path) -> None:
    """Remove what dead processes left of this very folder."""
    size = len(f"{TEMPORARY}00000000-{folder.name}")
    for path in folder.parent.iterdir():
        if (
            path.name.startswith(TEMPORARY)
            and path.name.endswith(f"-{folder.name}")
            and len(path.name) == size
            and path.is_dir()
        ):
            _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass  # another process is at work there
    finally:
        os.close(lock)


def _swap(staging: Path, folder: Path) -> None:
    aside = folder.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{folder.name}")
    if folder.exists():
        folder.rename(aside)
    staging.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
