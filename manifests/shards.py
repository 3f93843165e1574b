"""Own the tar shards: a writer whose bytes depend on its members alone, a sidecar index, a reader that checks."""

import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import IO

from manifests.checksums import sha256_file
from manifests.files import FormatError, parsing, read_json, unsealed, write_json, writing
from manifests.regular_files import read_plain
from manifests.store import local_copy, open_file

Sample = dict[str, bytes]
"""One sample: extension without its leading dot ("jpg", "codes.npy") -> bytes."""


@dataclass(frozen=True)
class Member:
    """One member of a shard as its index says: name, byte offset of its data, length, CRC-32."""

    name: str
    offset: int
    length: int
    crc32: int

    @property
    def key(self) -> str:
        """Return the sample that the member belongs to: its name up to the first dot."""
        return self.name.partition(".")[0]

    @property
    def end(self) -> int:
        """Return where the next member's header starts: data are padded to blocks of 512 bytes."""
        return self.offset + -(-self.length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    @property
    def header(self) -> bytes:
        """Return the 512 bytes that `write_shard` puts before the data."""
        return _info(self.name, self.length).tobuf(tarfile.USTAR_FORMAT)


@dataclass(frozen=True)
class Index:
    """A shard's sidecar: what the tar beside it must be."""

    shard: str
    sha256: str
    bytes: int
    samples: int
    members: tuple[Member, ...]
    sealed: bool = True

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Read the index file at `path`. Raises FormatError for one that is damaged or no index, OSError."""
        entry, sealed = unsealed(path, read_plain(path))
        with parsing(path, "not a shard's index"):
            members = tuple(
                Member(str(name), int(offset), int(length), int(crc)) for name, offset, length, crc in entry["members"]
            )
            index = cls(
                str(entry["shard"]), str(entry["sha256"]), int(entry["bytes"]), int(entry["samples"]), members, sealed
            )
            fault = index.misplaced()
        if fault:
            raise FormatError(f"{path}: not a shard's index: {fault}")
        return index

    def misplaced(self) -> str:
        """Return what is wrong with the places of its members, which `write_shard` puts one behind the other, or
        nothing."""
        place = 0
        for member in self.members:
            if (
                member.offset != place + tarfile.BLOCKSIZE
                or member.length < 0
                or not 0 < len(member.name.encode()) <= tarfile.LENGTH_NAME
            ):
                return (
                    f"member {member.name[:100]!r} is {member.length} bytes at byte {member.offset}, behind one that"
                    f" ends at {place}"
                )
            place = member.end
        end = place + 2 * tarfile.BLOCKSIZE
        return "" if end <= self.bytes else f"{self.bytes} bytes, its members take {end}"


class ShardError(FormatError):
    """A tar shard is not what its index says; the message names the shard and the difference."""


def check_key(key: str) -> None:
    """Raise ValueError for a sample key that webdataset would split elsewhere: empty, with a dot, or too long for
    ustar."""
    if not key or "." in key or "/" in key or len(key) > 60:
        raise ValueError(f"sample key {key!r}: wanted 1 to 60 characters without dots and slashes")


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]], index: bool = False) -> int:
    """Write samples in the given order, extensions sorted, mtime and owners 0; return how many.

    With `index`, a sidecar `STEM.index.json` gets, per member, name, offset of its data, length and CRC-32 (the tar
    is renamed first, so that an index always has its tar).
    """
    members: list[list[object]] = []
    count = 0
    with writing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, parts in samples:
                check_key(key)
                count += 1
                members += [_add(tar, f"{key}.{extension}", parts[extension]) for extension in sorted(parts)]
        sha256, size = sha256_file(temporary), temporary.stat().st_size
    if index:
        facts = {"shard": path.name, "sha256": sha256, "bytes": size, "samples": count, "members": members}
        write_json(index_path(path), facts, sealed=True)
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> list[object]:
    """Append a member; return its line in the index: name, offset of the data, length, CRC-32."""
    info = _info(name, len(data))
    line: list[object] = [name, tar.offset + tarfile.BLOCKSIZE, len(data), zlib.crc32(data)]
    tar.addfile(info, io.BytesIO(data))
    return line


def _info(name: str, length: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = length, 0o644
    return info


def index_path(path: Path) -> Path:
    """Return the path of a shard's sidecar index: `00000.tar` -> `00000.index.json`."""
    return path.with_name(path.name.removesuffix(".tar") + ".index.json")


def read_shard(path: Path) -> Iterator[tuple[str, Sample]]:
    """Yield (key, sample) in the shard's order.

    Raises ShardError for a tar that is cut: tarfile itself ends silently at a sample boundary, so the end-of-archive
    blocks are asked for.
    """
    key, sample = "", Sample()
    for name, extension, data in _members(path):
        if name != key and sample:
            yield key, sample
            sample = Sample()
        key, sample[extension] = name, data
    if sample:
        yield key, sample


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (key, extension, bytes) of every member, then check the end."""
    with parsing(path, "damaged", ShardError), open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            member = tar.extractfile(info)
            name, _, extension = info.name.partition(".")
            yield name, extension, member.read() if member else b""
        check_end(path, tar.offset)


def member_places(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset of the data, length) of a tar's members by their headers alone: nothing is checked.

    Headers like those of `write_shard` take microseconds; from the first other one on tarfile reads them. A tar in a
    store is copied to this machine for it. Raises ShardError or OSError.
    """
    with local_copy(path) as local, open(local, "rb") as file:
        at = 0
        while _is_plain(head := os.pread(file.fileno(), tarfile.BLOCKSIZE, at)):
            name, length = head[:100].rstrip(b"\0").decode("utf-8", "surrogateescape"), int(head[124:135], 8)
            yield name, at + tarfile.BLOCKSIZE, length
            at += tarfile.BLOCKSIZE + -(-length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if any(head):
            file.seek(at)
            yield from _places_by_tarfile(path, file)


def _is_plain(head: bytes) -> bool:
    """Tell whether a block is the header of a file whose name and length stand in it, and nowhere else; it has its
    checksum."""
    return (
        head[257:263] == b"ustar\0"
        and head[156:157] == tarfile.REGTYPE
        and not head[345]
        and not head[124:135].strip(b"01234567")
        and head[148:156] == b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * ord(" "))
    )


def _places_by_tarfile(path: Path, file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    with parsing(path, "damaged", ShardError), tarfile.open(fileobj=file, mode="r:") as tar:
        yield from ((info.name, info.offset_data, info.size) for info in tar)


def check_end(path: Path, offset: int) -> None:
    """Ask for the two zero blocks where a tar's last member ends. Raises ShardError where they are not: the file was
    cut."""
    with open_file(path) as file:
        file.seek(offset)
        tail = file.read(2 * tarfile.BLOCKSIZE)
    if len(tail) < 2 * tarfile.BLOCKSIZE or any(tail):
        raise ShardError(f"{path}: no end-of-archive blocks at byte {offset}: the file was cut")


def index_counts(path: Path) -> tuple[int, int, str]:
    """Return what an index file says of its whole tar: samples, bytes, sha256 in hex; its members are not looked at.

    Raises FormatError for one that is damaged or no index, OSError.
    """
    entry = read_json(path)
    with parsing(path, "not a shard's index"):
        return int(entry["samples"]), int(entry["bytes"]), str(entry["sha256"])


def verify_shard(path: Path) -> int:
    """Check a shard against its index, byte for byte; return the number of samples.

    Raises ShardError for a shard that differs, FormatError for an index that is damaged, OSError.
    """
    samples, expected, sha256 = index_counts(index_path(path))
    size = path.stat().st_size
    if size != expected:
        raise ShardError(f"{path}: {size} bytes, its index says {expected}")
    got = sha256_file(path)
    if got != sha256:
        raise ShardError(f"{path}: sha256 {got[:16]}…, its index says {sha256[:16]}…")
    return samples


class ShardReader:
    """A shard opened through its index: any sample at once, or all from one on, each member checked by its CRC-32.

    Use it with `with`. Opening reads the index alone; a damaged member is found when it is read.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError or FormatError for a tar or index that is missing or no index."""
        self.path, self.index = path, Index.read(index_path(path))
        self._file: IO[bytes] = open_file(path)

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._samples)

    @cached_property
    def _samples(self) -> dict[str, list[Member]]:
        return {key: list(members) for key, members in groupby(self.index.members, key=lambda member: member.key)}

    @property
    def keys(self) -> list[str]:
        """Return the samples' keys in the shard's order."""
        return list(self._samples)

    def member(self, name: str) -> bytes:
        """Return one member's bytes. Raises KeyError for a name that is not in the shard, ShardError for damaged
        bytes."""
        for member in self._samples.get(name.partition(".")[0], ()):
            if member.name == name:
                return self._read(member)
        raise KeyError(f"{self.path}: no member {name!r}")

    def read(self, key: str) -> Sample:
        """Return one sample. Raises KeyError for a key that is not in the shard, ShardError for damaged bytes."""
        if key not in self._samples:
            raise KeyError(f"{self.path}: no sample {key!r}")
        return {member.name.partition(".")[2]: self._read(member) for member in self._samples[key]}

    def samples(self, start: int = 0) -> Iterator[tuple[str, Sample]]:
        """Yield (key, sample) from the sample at position `start` on: how a reader resumes without reading what it
        had."""
        for key in self.keys[start:]:
            yield key, self.read(key)

    def _read(self, member: Member) -> bytes:
        self._file.seek(member.offset)
        data = self._file.read(member.length)
        if len(data) != member.length:
            raise ShardError(f"{self.path}: cut in member {member.name} at byte {member.offset + len(data)}")
        if zlib.crc32(data) != member.crc32:
            raise ShardError(
                f"{self.path}: member {member.name} at byte {member.offset} is damaged: its CRC-32 is not the index's"
            )
        return data


def open_member(path: Path, name: str) -> bytes:
    """Return one member of a shard by its index, such as "UID.codes.npy". Raises KeyError, ShardError, FormatError or
    OSError."""
    with ShardReader(path) as reader:
        return reader.member(name)
