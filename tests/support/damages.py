"""The nine ways in which a shard was seen to be damaged, for tars by their members and for any other file by bytes."""

import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

BLOCK = 512


def _members(path: Path) -> list[tuple[str, int, int]]:
    """Return (key, byte of the header, length) of a whole tar's members; a made-up cut for other files."""
    if path.suffix != ".tar":
        size = path.stat().st_size
        return [("a", 0, size // 4), ("a", size // 4, size // 4), ("b", size // 2, size // 2)]
    with tarfile.open(path) as tar:
        return [(info.name.partition(".")[0], info.offset, info.size) for info in tar] or [
            ("a", 0, 0),
            ("a", 0, 0),
            ("b", 0, 0),
        ]


def _second(path: Path) -> tuple[str, int, int]:
    members = _members(path)
    return members[min(len(members) - 1, 3)]


def _cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[min(at, len(data) - 1)] ^= 0x04
    path.write_bytes(data)


def _hole(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = min(len(data) // 3 // BLOCK * BLOCK, max(0, len(data) - 1024))
    if not any(data[start : start + 1024]):  # an empty tar is zeros anyway
        data[:1] = b"x"
    data[start : start + 1024] = (
        bytes(len(data[start : start + 1024])) if any(data[start : start + 1024]) else data[start : start + 1024]
    )
    path.write_bytes(data)


def _at_sample(path: Path) -> None:
    members = _members(path)
    at = next((start for (before, _, _), (key, start, _) in pairwise(members) if before != key), BLOCK)
    _cut(path, at)


def _zero(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(bytes(size) if any(path.read_bytes()) else bytes(size + BLOCK))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut at a sample boundary": _at_sample,
    "cut between members": lambda path: _cut(path, _members(path)[1][1]),
    "cut mid-header": lambda path: _cut(path, _second(path)[1] + (200 if path.suffix == ".tar" else 7)),
    "header bit flip": lambda path: _flip(path, _second(path)[1] + 5),
    "hole of zeros": _hole,
    "body bit flip": lambda path: _flip(
        path, _second(path)[1] + (BLOCK if path.suffix == ".tar" else 0) + _second(path)[2] // 2
    ),
    "all zeros": _zero,
    "cut mid-body": lambda path: _cut(
        path, _second(path)[1] + (BLOCK if path.suffix == ".tar" else 0) + _second(path)[2] // 2
    ),
    "empty": lambda path: path.write_bytes(b"") and None,
}
