"""Read plain files and walk folders in a place where anything may lie: pipes, sockets, links that lead round in a
circle."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from manifests.remote_path import RemotePath


def open_plain(path: str | Path, buffering: int = -1) -> IO[bytes]:
    """Open a plain file to read. Raises OSError for anything else: whoever opens a pipe waits for its writer without an
    end."""
    if isinstance(path, RemotePath):
        return cast(IO[bytes], path.open("rb"))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb", buffering)


def read_plain(path: Path) -> bytes:
    """Return the bytes of a plain file. Raises OSError for anything else."""
    with open_plain(path) as file:
        return file.read()


def walk(root: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of its folders, names of its files) as `os.walk` does, through links too, but no folder
    twice.

    A link to a folder that was walked before stands among the files. `onerror` hears of folders that cannot be listed.
    """
    if isinstance(root, RemotePath):
        yield from _walk_store(root)
        return
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, onerror=onerror, followlinks=True):
        try:
            found = os.stat(folder)
        except OSError:  # it went meanwhile
            continue
        if (found.st_dev, found.st_ino) in seen:
            names.clear()
            yield Path(folder).parent, [], [Path(folder).name]
        else:
            seen.add((found.st_dev, found.st_ino))
            yield Path(folder), names, files


def _walk_store(root: RemotePath) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk what lies below a prefix, by one listing of each folder."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        listed = folder.listed()
        names = [path.name for path, facts in listed if not facts.is_file]
        yield folder, names, [path.name for path, facts in listed if facts.is_file]
        waiting += [folder / name for name in reversed(names)]
