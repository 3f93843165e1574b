"""Own the tar shards: a writer whose bytes depend on its members alone, a sidecar index, a reader that checks."""

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from manifests.files import read_json, write_json, writing
from manifests.weights import sha256_file

Sample = dict[str, bytes]
"""One sample: extension without its leading dot ("jpg", "codes.npy") -> bytes."""


class ShardError(ValueError):
    """A tar shard is not what its index says; the message names the shard and the difference."""


def check_key(key: str) -> None:
    """Raise ValueError for a sample key that webdataset would split elsewhere: empty, with a dot, or too long for ustar."""
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
        write_json(index_path(path), {"shard": path.name, "sha256": sha256, "bytes": size, "samples": count, "members": members})
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> list[object]:
    """Append a member; return its line in the index: name, offset of the data, length, CRC-32."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    line: list[object] = [name, tar.offset + tarfile.BLOCKSIZE, len(data), zlib.crc32(data)]
    tar.addfile(info, io.BytesIO(data))
    return line


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
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                file = tar.extractfile(info)
                name, _, extension = info.name.partition(".")
                yield name, extension, file.read() if file else b""
            _check_end(path, tar.offset)
    except tarfile.TarError as error:
        raise ShardError(f"{path}: damaged ({error})") from error


def _check_end(path: Path, offset: int) -> None:
    """Ask for the two zero blocks where tarfile stopped reading headers."""
    with open(path, "rb") as file:
        file.seek(offset)
        tail = file.read(2 * tarfile.BLOCKSIZE)
    if len(tail) < 2 * tarfile.BLOCKSIZE or any(tail):
        raise ShardError(f"{path}: no end-of-archive blocks at byte {offset}: the file was cut")


def verify_shard(path: Path) -> int:
    """Check a shard against its index, byte for byte; return the number of samples. Raises ShardError or OSError."""
    index = read_json(index_path(path))
    size = path.stat().st_size
    if size != index["bytes"]:
        raise ShardError(f"{path}: {size} bytes, its index says {index['bytes']}")
    got = sha256_file(path)
    if got != index["sha256"]:
        raise ShardError(f"{path}: sha256 {got[:16]}…, its index says {index['sha256'][:16]}…")
    return int(index["samples"])
