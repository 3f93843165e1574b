"""A path in an object store, with the methods of pathlib: any file system that fsspec knows, by its URL.

`__fspath__` raises: what opens files by the name that the operating system knows (os, shutil, Arrow, DuckDB) says so
instead of making a local folder "s3:". Every request is sent again, with growing pauses, where the store throttles it,
fails, or sends less than it said (store_requests.py).
"""

import contextlib
import fnmatch
import io
from collections.abc import Generator, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path, PosixPath
from typing import Any, NoReturn, Self

from manifests.store_requests import CODES, Facts, facts_of, filesystem, read_whole, transient, tried

WHOLE_BYTES = 16 << 20
"""Objects up to this size are read by one request, others in pieces of PIECE_BYTES."""
PIECE_BYTES = 4 << 20
TOGETHER = 500
"""Objects that are read, or deleted, at a time."""
_SNAPSHOT: ContextVar["dict[str, dict[str, Facts | None]] | None"] = ContextVar("listings", default=None)
"""Folder -> name -> facts of what lies in it, None of what was changed since the folder was listed."""


def is_url(text: str) -> bool:
    """Tell whether text names a place in a store: PROTOCOL://…, but for file://."""
    head, colon, _ = text.partition("://")
    return bool(colon) and head.isalnum() and head.lower() != "file"


class Changes:
    """How many objects this process has put or deleted: what is remembered of objects may not hold any more."""

    count = 0


class RemotePath(PosixPath):
    """A place in a store. Folders are prefixes: they need not be made, and are there while something lies below."""

    __slots__ = ()

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the path of a URL. Raises ValueError without a bucket."""
        protocol, _, rest = url.partition("://")
        parts = [part for part in rest.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise ValueError(f"{url!r}: wanted {protocol}://BUCKET/FOLDER")
        return cls(f"{protocol.lower()}:", *parts)

    def __str__(self) -> str:
        parts = self.parts
        return f"{parts[0]}//{'/'.join(parts[1:])}" if self._is_whole() else "/".join(parts) or "."

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __fspath__(self) -> NoReturn:
        raise TypeError(f"{self}: lies in a store, and no file of this machine has that name")

    def _is_whole(self) -> bool:
        return bool(self.parts) and self.parts[0].endswith(":")

    @property
    def protocol(self) -> str:
        """Return s3, gs, memory …"""
        return self.parts[0].removesuffix(":")

    @property
    def key(self) -> str:
        """Return the name under which the store's file system knows it."""
        return str(filesystem(self.protocol)._strip_protocol(str(self)))

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system on this path; again where it fails for a while.

        Raises StoreError, and FileNotFoundError and its like.
        """
        return tried(lambda: getattr(filesystem(self.protocol), name)(self.key, *args, **options), str(self))

    # what is there

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Return size, time of change and tag. Raises FileNotFoundError."""
        known = _known(self)
        if known is None:
            return facts_of(self.call("info"))
        if self.name not in known:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        facts = known[self.name]
        if facts is None:  # changed by this process since it was listed
            try:
                facts = known[self.name] = facts_of(self.call("info"))
            except FileNotFoundError:
                known.pop(self.name, None)
                raise
        return facts

    def lstat(self) -> Any:
        """Return what `stat` does: stores have no links."""
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether there is such an object, or one below."""
        try:
            self.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_file(self) -> bool:
        """Tell whether there is such an object."""
        try:
            return bool(self.stat().is_file)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_dir(self) -> bool:
        """Tell whether there is an object below."""
        try:
            return not self.stat().is_file
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_symlink(self) -> bool:
        """Return False."""
        return False

    def listed(self) -> list[tuple[Self, Facts]]:
        """Return (path, facts) of what lies directly below, by name and by one listing; nothing where nothing does."""
        try:
            found = self.call("ls", detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        here = self.key.rstrip("/")
        named = {entry["name"].rstrip("/"): entry for entry in found}
        return [(self / name.rsplit("/", 1)[-1], facts_of(named[name])) for name in sorted(named) if name != here]

    def iterdir(self) -> Generator[Self, None, None]:
        """Yield what lies directly below, by name."""
        for path, _ in self.listed():
            yield path

    def walk_files(self) -> list[tuple[Self, Facts]]:
        """Return (path, facts) of every object below, by one listing."""
        try:
            found = self.call("find", detail=True)
        except FileNotFoundError:
            return []
        start = len(self.key.rstrip("/")) + 1
        return [(self / name[start:], facts_of(found[name])) for name in sorted(found) if len(name) >= start]

    def glob(self, pattern: str, **options: Any) -> Iterator[Self]:  # type: ignore[override]
        """Yield what matches, by name: `*` within a name, `**` for any number of folders; folders alone where the
        pattern ends with a slash."""
        if pattern.startswith("**/"):
            yield from self.rglob(pattern[3:])
            return
        head, _, rest = pattern.partition("/")
        for path, facts in self.listed() if any(sign in head for sign in "*?[") else [(self / head, None)]:
            if facts is None:
                if rest:
                    yield from path.glob(rest)
                elif path.exists():
                    yield path
            elif fnmatch.fnmatchcase(path.name, head):
                if not rest:
                    if not (facts.is_file and pattern.endswith("/")):
                        yield path
                elif not facts.is_file:
                    yield from path.glob(rest)

    def rglob(self, pattern: str, **options: Any) -> Iterator[Self]:  # type: ignore[override]
        """Yield every object below whose name, or last names, match."""
        for path, _ in self.walk_files():
            if path.match(pattern):
                yield path

    # reading

    def open(self, mode: str = "r", *args: Any, facts: Facts | None = None, **options: Any) -> Any:
        """Open to read, as bytes ("rb") or text: stores publish whole files, see `manifests.files.writing`.

        `facts`: what is known of it; not asked for again then.
        """
        if mode not in ("r", "rb", "rt"):
            raise io.UnsupportedOperation(f"{self}: opened as {mode!r}; files of a store are written whole")
        is_new = facts is None and _SNAPSHOT.get() is None  # else it may be another one by now, of another size
        facts = facts or self.stat()
        if not facts.is_file:
            raise IsADirectoryError(21, "is a folder", str(self))
        if facts.st_size <= WHOLE_BYTES:
            data = (self._read(0, facts.st_size) if is_new else self.read_bytes()) if facts.st_size else b""
            file: Any = io.BytesIO(data)
        else:
            file = io.BufferedReader(Ranges(self, facts.st_size), PIECE_BYTES)
        return file if mode == "rb" else io.TextIOWrapper(file, *args, **options)

    def _read(self, start: int, end: int) -> bytes:
        """Return these bytes. Raises StoreError where fewer come, each time."""

        def request() -> bytes:
            data = bytes(filesystem(self.protocol).cat_file(self.key, start=start, end=end))
            if len(data) != end - start:
                raise OSError(f"{len(data)} bytes came of {end - start}")
            return data

        return tried(request, str(self))

    def read_bytes(self) -> bytes:
        """Return the bytes of the object, by one request."""
        return tried(lambda: read_whole(filesystem(self.protocol), self.key), str(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the text of the object."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    # changing

    def put(self, local: Path) -> None:
        """Upload a local file as this object."""
        tried(lambda: filesystem(self.protocol).put_file(str(local), self.key), str(self))
        self._changed()

    def write_bytes(self, data: Any) -> int:
        """Upload bytes as this object."""
        self.call("pipe_file", bytes(data))
        self._changed()
        return len(data)

    def write_text(self, data: str, *args: Any, **options: Any) -> int:
        """Upload text as this object."""
        return self.write_bytes(data.encode())

    def create(self, data: bytes) -> bool:
        """Upload bytes where there is no such object; return False where there is one.

        An upload whose answer was lost may have come: what is there then tells.
        """
        try:
            self.call("pipe_file", data, mode="create")
        except FileExistsError:
            return self.read_bytes() == data
        self._changed()
        return True

    def copy_to(self, target: "RemotePath") -> None:
        """Copy within the store."""
        self.call("cp_file", target.key)
        target._changed()

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object. Raises FileNotFoundError where there is none, unless that may be."""
        try:
            self.call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise
        self._changed()

    def drop(self) -> None:
        """Delete every object below, and folders where the file system has any of its own."""
        delete_all([path for path, _ in self.walk_files()])
        if self.protocol not in CODES:
            with contextlib.suppress(FileNotFoundError):
                self.call("rm", recursive=True)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there once something lies in it."""

    def rmdir(self) -> None:
        """Do nothing: a folder is gone once nothing lies in it."""

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty object where there is none."""
        self.create(b"")

    def replace(self, target: Any) -> Any:
        """Copy within the store, then delete."""
        self.copy_to(target)
        self.unlink(missing_ok=True)
        return target

    rename = replace

    def resolve(self, strict: bool = False) -> Self:
        """Return itself."""
        return self

    absolute = expanduser = resolve

    def samefile(self, other: Any) -> bool:
        """Tell whether it is the same path."""
        return bool(self == other)

    def _changed(self) -> None:
        """Let listings that are kept know of a change: what is there now is asked for."""
        Changes.count += 1
        snapshot, path = _SNAPSHOT.get(), RemotePath(*self.parts)
        while snapshot is not None and len(path.parts) > 3:
            known = snapshot.get(str(path.parent))
            if known is not None:
                if path != self and path.name in known:
                    break
                known[path.name] = None
            path = path.parent


def read_all(paths: Sequence[RemotePath]) -> list[bytes | None]:
    """Return the bytes of objects of one store, many at a time; None where there is none."""
    found: list[bytes | None] = []
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        keys = [path.key for path in some]
        data = tried(partial(filesystem(some[0].protocol).cat, keys, on_error="return"), str(some[0].parent))
        for path, key in zip(some, keys, strict=True):
            found.append(data[key] if isinstance(data.get(key), bytes) else _alone(path))
    return found


def _alone(path: RemotePath) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def delete_all(paths: Sequence[RemotePath]) -> None:
    """Delete objects of one store, many at a time; those that are not there are none to be deleted."""
    for path in (path for path in paths if type(path) is not RemotePath):
        path.unlink(missing_ok=True)  # of a working copy: more than an object
    plain = [path for path in paths if type(path) is RemotePath]
    for start in range(0, len(plain), TOGETHER):
        some = plain[start : start + TOGETHER]
        try:
            filesystem(some[0].protocol).rm([path.key for path in some])
        except transient():  # one of them is gone already, or it failed for a while: each is asked for until it is
            for path in some:
                path.unlink(missing_ok=True)
        for path in some:
            path._changed()


class Ranges(io.RawIOBase):
    """An object too large for memory, read by requests for ranges of it."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self.path, self.size, self.at = path, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset, as files do."""
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit, or are left."""
        count = min(len(buffer), max(0, self.size - self.at))
        if count:
            buffer[:count] = self.path._read(self.at, self.at + count)
            self.at += count
        return count


@contextlib.contextmanager
def snapshot() -> Iterator[None]:
    """Within the block, take what is there from one listing of each folder instead of a request for each file.

    For questions about many files at a time when others change nothing; changes of this process are known.
    """
    mark = _SNAPSHOT.set({})
    try:
        yield
    finally:
        _SNAPSHOT.reset(mark)


def _known(path: RemotePath) -> "dict[str, Facts | None] | None":
    found = _SNAPSHOT.get()
    if found is None or len(path.parts) < 4:
        return None
    folder = str(path.parent)
    if folder not in found:
        found[folder] = {entry.name: facts for entry, facts in path.parent.listed()}
    return found[folder]
