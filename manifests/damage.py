"""Say what is wrong with a file: which member of a tar, at which byte; and save what is whole in a damaged one."""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from manifests.checksums import Measured
from manifests.regular_files import open_plain
from manifests.shards import Index

BLOCK = tarfile.BLOCKSIZE
NAMED = 3
"""Faults of one file that are named; the others are counted."""


@dataclass(frozen=True)
class Piece:
    """What a scan of a tar met: a member with its data, or a fault. `offset` is the byte of the header."""

    offset: int
    name: str = ""
    data: bytes = b""
    fault: str = ""


def explain(
    path: Path, wanted: Measured, got: Measured, index: Index | None = None, pictures: Mapping[str, str] | None = None
) -> str:
    """Say how a file differs from its record. `pictures`: member name -> sha256 in hex, for a tar without an index."""
    if got.error:
        return f"cannot be read ({got.error})"
    if got.bytes == 0:
        return f"empty, {wanted.bytes} bytes wanted"
    if got.bytes < wanted.bytes:
        size = f"cut: {got.bytes} bytes, {wanted.bytes} wanted; "
    else:
        size = "" if got.bytes == wanted.bytes else f"{got.bytes} bytes, {wanted.bytes} wanted; "
    zeros = "zeros alone; " if _is_zero(path) else ""
    faults = list(tar_faults(path, index, pictures)) if path.name.endswith(".tar") else []
    more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
    return "; ".join([f"{size}{zeros}sha256 {got.sha256[:16]}…, {wanted.sha256[:16]}… wanted", *faults[:NAMED], *more])


def _is_zero(path: Path) -> bool:
    with open_plain(path) as file:
        while block := file.read(1 << 20):
            if any(block):
                return False
    return True


def tar_faults(path: Path, index: Index | None = None, pictures: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield what is wrong with a tar, member by member: against its index, else against itself and the pictures'
    sha256."""
    if index is not None:
        yield from _against(path, index)
        return
    wanted = dict(pictures or {})
    for piece in scan(path):
        known = wanted.pop(piece.name, None)
        if piece.fault:
            yield piece.fault
        elif known is not None and hashlib.sha256(piece.data).hexdigest() != known:
            yield f"member {piece.name} at byte {piece.offset + BLOCK}: not the recorded sha256"
    if wanted:
        yield f"{len(wanted)} members are not in it, such as {min(wanted)}"


def _against(path: Path, index: Index) -> Iterator[str]:
    size = path.stat().st_size
    with open_plain(path) as file:
        for member in index.members:
            if member.offset + member.length > size:
                yield f"cut at byte {size}, {_where(size, index)}"
                return
            file.seek(member.offset - BLOCK)
            if file.read(BLOCK) != member.header:
                yield f"header of member {member.name} at byte {member.offset - BLOCK} is damaged"
            if zlib.crc32(file.read(member.length)) != member.crc32:
                yield f"member {member.name} at byte {member.offset}: its CRC-32 is not the index's"
            if any(file.read(member.end - member.offset - member.length)):
                yield f"padding of member {member.name} is not zero"
        end = index.members[-1].end if index.members else 0
        yield from _end(file, end, size)


def _where(size: int, index: Index) -> str:
    """Tell where a cut fell."""
    for before, member in zip((None, *index.members), index.members, strict=False):
        start = member.offset - BLOCK
        if size == start:
            return (
                "between samples"
                if before is None or before.key != member.key
                else f"between members of sample {member.key}"
            )
        if size < member.offset:
            return f"in the header of {member.name}"
        if size < member.offset + member.length:
            return f"in the body of {member.name}"
    return "after the last member"


def _end(file: IO[bytes], end: int, size: int) -> Iterator[str]:
    file.seek(end)
    tail = file.read(2 * BLOCK)
    if len(tail) < 2 * BLOCK:
        yield f"cut at byte {size}, in the end-of-archive blocks"
    elif any(tail):
        yield f"no end-of-archive blocks at byte {end}"
    elif any(file.read()):
        yield f"bytes other than zero after the end-of-archive blocks at byte {end}"


def scan(path: Path) -> Iterator[Piece]:
    """Yield every member that has a whole header and body, and a fault wherever the tar is no tar; go on behind it."""
    size, position = path.stat().st_size, 0
    with open_plain(path) as file:
        while position >= 0:
            pieces, position = _at(file, position, size)
            yield from pieces


def _at(file: IO[bytes], position: int, size: int) -> tuple[list[Piece], int]:
    """Return what is at a position, and where to go on, -1 for nowhere."""
    file.seek(position)
    header = file.read(BLOCK)
    if len(header) < BLOCK:
        return [Piece(position, fault=f"cut at byte {size}, {'in a header' if header else 'between members'}")], -1
    info = _parse(header)
    if info is None:
        return _no_header(file, header, position, size)
    data = file.read(info.size)
    if len(data) < info.size:
        return [Piece(position, fault=f"cut at byte {size}, in the body of {info.name}")], -1
    padding = file.read(-info.size % BLOCK)
    faults = [Piece(position, fault=f"padding of member {info.name} is not zero")] if any(padding) else []
    return [Piece(position, info.name, data), *faults], position + BLOCK + info.size + len(padding)


def _no_header(file: IO[bytes], header: bytes, position: int, size: int) -> tuple[list[Piece], int]:
    if not any(header) and _zero_to_end(file, size - position):
        return [], -1
    what = "zeros" if not any(header) else "a damaged header"
    fault = Piece(position, fault=f"{what} at byte {position}, where a member's header belongs")
    return [fault], _next_header(file, position + BLOCK)


def _parse(header: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape") if header[257:262] == b"ustar" else None
    except tarfile.HeaderError:
        return None


def _zero_to_end(file: IO[bytes], left: int) -> bool:
    """Tell whether the tar ends here: two blocks of zeros and nothing but zeros behind them."""
    return left >= 2 * BLOCK and not any(file.read())


def _next_header(file: IO[bytes], position: int) -> int:
    """Return where the next valid header is, or -1."""
    file.seek(position)
    while len(block := file.read(BLOCK)) == BLOCK:
        if _parse(block) is not None:
            return position
        position += BLOCK
    return -1
