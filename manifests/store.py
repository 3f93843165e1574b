"""Keep a run in a folder, or in an object store: the one place that knows how a whole file is published there.

A run folder's root is a `Path`, or for a URL such as s3://bucket/run a `RemotePath` (remote_path.py), which reads,
lists and deletes by the same methods. What a method cannot say alike for both is a function here: publishing a file
that was written elsewhere, renaming, copying, dropping a folder, and a name that only one process can take.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import pyarrow as pa

from manifests.layered_path import layered
from manifests.regular_files import open_plain
from manifests.remote_path import Ranges, RemotePath, delete_all, is_url
from manifests.scratch import UPLOAD, base, copy_of, scratch_of_stored

BLOCK = 1 << 20
SPARSE_BYTES = 64 << 10
"""Bytes of the smallest request for a piece of an object."""


@dataclass(frozen=True)
class Entry:
    """A file as a listing shows it: its name in the folder, bytes, and a tag that is another one once it changed."""

    name: str
    size: int
    tag: str


class Store(Protocol):
    """What differs between a disk and an object store."""

    def open(self, path: Path) -> IO[bytes]:
        """Open a plain file to read, seekable. Raises OSError."""

    def commit(self, local: Path, path: Path) -> None:
        """Publish a finished local file at `path`, whole or not at all; the local one is gone then."""

    def create(self, path: Path, data: bytes) -> bool:
        """Publish a small file where none is; return False where there is one. Of several at once one succeeds."""

    def entries(self, folder: Path) -> list[Entry]:
        """Return the files that lie directly in a folder, by one listing; none where there is no such folder."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in the place of what has it."""

    def link(self, source: Path, target: Path) -> None:
        """Let `target` hold what the file `source` does, in the place of what was there, without moving the bytes."""

    def drop(self, folder: Path) -> None:
        """Remove a folder with all that it holds; nothing where there is none."""


class LocalStore:
    """A disk."""

    def open(self, path: Path) -> IO[bytes]:
        """Open a plain file to read."""
        return open_plain(path)

    def commit(self, local: Path, path: Path) -> None:
        """Rename a file to its place on the same disk, once the disk has its bytes."""
        descriptor = os.open(local, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(local, path)

    def create(self, path: Path, data: bytes) -> bool:
        """Create a file that is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def entries(self, folder: Path) -> list[Entry]:
        """List a folder's plain files, without those that went meanwhile."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_file():
                        facts = entry.stat()
                        found.append(Entry(entry.name, facts.st_size, f"{facts.st_ino}-{facts.st_mtime_ns}"))
        return found

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file."""
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Make a hard link, where the disk has them, else a copy."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    def drop(self, folder: Path) -> None:
        """Remove a folder, or the link that leads to one."""
        if folder.is_symlink():
            folder.unlink(missing_ok=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


class RemoteStore:
    """An object store, or any other file system that fsspec knows. One PUT is the commit; a folder is a prefix."""

    def open(self, path: Path) -> IO[bytes]:
        """Open an object to read."""
        return cast(IO[bytes], _remote(path).open("rb"))

    def commit(self, local: Path, path: Path) -> None:
        """Upload a file: readers see the object before or the whole of this one."""
        _remote(path).put(local)
        local.unlink(missing_ok=True)

    def create(self, path: Path, data: bytes) -> bool:
        """Upload under the condition that there is no such object (If-None-Match: *)."""
        return _remote(path).create(data)

    def entries(self, folder: Path) -> list[Entry]:
        """List a prefix."""
        return [Entry(path.name, facts.st_size, facts.tag) for path, facts in _remote(folder).listed() if facts.is_file]

    def rename(self, source: Path, target: Path) -> None:
        """Copy within the store, then delete: killed in between, both are there."""
        _remote(source).copy_to(_remote(target))
        source.unlink(missing_ok=True)

    def link(self, source: Path, target: Path) -> None:
        """Copy within the store."""
        _remote(source).copy_to(_remote(target))

    def drop(self, folder: Path) -> None:
        """Delete every object below a prefix."""
        _remote(folder).drop()


LOCAL, REMOTE = LocalStore(), RemoteStore()


def store_of(path: Path) -> Store:
    """Return the store that a path lies in."""
    return REMOTE if isinstance(path, RemotePath) else LOCAL


def _remote(path: Path) -> RemotePath:
    assert isinstance(path, RemotePath), path
    return path


def path_of(root: str | Path) -> Path:
    """Return the path of a folder's name, or of a URL: where a run's root is read from text it is read by this."""
    if isinstance(root, Path):
        return root
    return layered(RemotePath.of(root)) if is_url(root) else Path(root)


def is_remote(path: Path) -> bool:
    """Tell whether a path lies in an object store."""
    return isinstance(path, RemotePath)


def scratch_of(root: Path) -> Path:
    """Return the local folder for what a run needs only while it works here: logs, spill, what workers have in hand.

    A local run's own root; for a run in a store a folder by its URL, below $TESSERA_SCRATCH or the system's folder for
    temporary files.
    """
    return scratch_of_stored(root) if isinstance(root, RemotePath) else root


def local_scratch(path: Path) -> Path:
    """Return a new local folder for a file on its way to or from `path` in a store; its owner drops it."""
    return Path(tempfile.mkdtemp(prefix=f"{UPLOAD}{os.getpid()}-", dir=base()))


def spool_folder(folder: Path) -> Path:
    """Return a local folder for what is read and written a piece at a time until it can be put into `folder`: itself,
    or for a store the one of files on their way."""
    return base() if isinstance(folder, RemotePath) else folder


def mapped(path: Path) -> Path:
    """Return a path on this machine's disk with the bytes of a file, for what is mapped by many processes: itself, or
    for an object of a store a copy that they share, made anew once the object has changed."""
    if not isinstance(path, RemotePath):
        return path
    copy = copy_of(path)
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with local_copy(path) as local:
            os.replace(local, copy)
    os.utime(copy)
    return copy


def rename(source: Path, target: Path) -> None:
    """Give a file another name in the same store, in the place of what has it: at once on a disk, by a copy in an
    object store, where a kill can leave both."""
    store_of(source).rename(source, target)


def link(source: Path, target: Path) -> None:
    """Let `target` hold what the file `source` of the same store does, in the place of what was there."""
    store_of(source).link(source, target)


def drop(folder: Path) -> None:
    """Remove a folder with all that it holds; nothing where there is none."""
    store_of(folder).drop(folder)


def unlink_all(paths: Iterable[Path]) -> None:
    """Delete files of one store, those that are there."""
    remote = []
    for path in paths:
        if isinstance(path, RemotePath):
            remote.append(path)
        else:
            path.unlink(missing_ok=True)
    delete_all(remote)


def entries(folder: Path) -> list[Entry]:
    """Return the files that lie directly in a folder, by one listing; none where there is no such folder."""
    return store_of(folder).entries(folder)


def open_file(path: Path) -> IO[bytes]:
    """Open a plain file of any store to read, seekable. Raises OSError."""
    return store_of(path).open(path)


def open_sparse(path: Path) -> IO[bytes]:
    """Open a file of any store of which only a few pieces are read. Raises OSError."""
    if not isinstance(path, RemotePath):
        return open(path, "rb")
    return cast(IO[bytes], io.BufferedReader(Ranges(path, path.stat().st_size), SPARSE_BYTES))


def create(path: Path, data: bytes) -> bool:
    """Publish a small file where none is; return False where there is one. Of several at once one succeeds."""
    return store_of(path).create(path, data)


class Scanned(Protocol):
    """A file or folder of a listing."""

    @property
    def name(self) -> str:
        """Return its name in the folder."""

    def stat(self) -> Any:
        """Return its facts, as os.stat does."""


@dataclass(frozen=True)
class _Listed:
    """An object of a listing."""

    name: str
    facts: Any

    def stat(self) -> Any:
        """Return what the listing says."""
        return self.facts


@contextlib.contextmanager
def scan(folder: Path) -> Iterator[Iterator[Scanned]]:
    """Open a folder's listing, as os.scandir does. Raises FileNotFoundError where a disk has no such folder; in an
    object store that is an empty one."""
    if isinstance(folder, RemotePath):
        yield iter([_Listed(path.name, facts) for path, facts in folder.listed()])
        return
    with os.scandir(folder) as found:
        yield found


def same_bytes(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same. Raises OSError."""
    with open_file(one) as left, open_file(other) as right:
        while block := left.read(BLOCK):
            if block != right.read(BLOCK):
                return False
        return not right.read(1)


@contextlib.contextmanager
def arrow_source(path: Path) -> Iterator[pa.NativeFile]:
    """Open a file of any store for Arrow to read. Raises OSError."""
    if isinstance(path, RemotePath):
        with path.open("rb") as file, pa.PythonFile(file, "r") as source:
            yield source
        return
    with pa.OSFile(str(path), "rb") as source:
        yield source


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a path on this machine's disk with the bytes of a file, for libraries that map files or open them by name:
    the file itself where it lies on a disk, else a copy that goes with the block."""
    if not isinstance(path, RemotePath):
        yield path
        return
    folder = local_scratch(path)
    try:
        with path.open("rb") as source, open(folder / path.name, "wb") as target:
            shutil.copyfileobj(source, target, io.DEFAULT_BUFFER_SIZE * 128)
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
