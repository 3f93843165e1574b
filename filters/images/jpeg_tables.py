"""Tell what of a JPEG's tables, fill bytes and restart markers its scans use: the rest could hold anything."""

import itertools
import re
import struct
from dataclasses import dataclass, field

from filters.images.header import ImageFault

HUFFMAN, QUANTISATION, RESTARTS = 0xC4, 0xDB, 0xDD
USUAL = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: Huffman coded
PROGRESSIVE = 0xC2
TABLES_OF_A_KIND = 4
LOOSE_BYTES = 64
"""Bytes that may stand behind a scan's data. Cameras leave a few; of more, only padding is harmless: a scan whose data
are not used up was damaged, or belongs to a picture of more rows."""
MARKER = re.compile(rb"\xff[^\x00]")
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends a scan's data: a marker other than a restart; FF 00 is a byte of the data (ITU T.81, B.1.1.5)."""
ODD = re.compile(rb"\xff[\xd0-\xd7\xff]")
FILL = re.compile(rb"\xff{2,}")  # of any number of FF before a marker's code or 00 the last counts (B.1.1.2)

Key = tuple[int, int]  # a table's marker, and its class and number


@dataclass
class _Table:
    key: Key
    data: bytes
    is_used: bool = False


@dataclass
class TableSegment:
    """A segment of tables, in their order. `packed` leaves out those that no scan has used."""

    marker: int
    tables: list[_Table]

    def packed(self) -> bytes:
        """Return the segment, b"" where no table is left."""
        body = b"".join(table.data for table in self.tables if table.is_used)
        return struct.pack(">BBH", 0xFF, self.marker, len(body) + 2) + body if body else b""


@dataclass
class Tables:
    """The tables that hold where the walk stands. `latched`: components whose quantisation table a scan has fixed."""

    latest: dict[Key, _Table] = field(default_factory=dict)
    latched: set[int] = field(default_factory=set)

    def take(self, marker: int, body: bytes) -> TableSegment:
        """Return a segment's tables, which replace those of their number. What is no table stays for the decoder to
        refuse."""
        tables = _split(marker, body)
        self.latest.update({table.key: table for table in tables})
        return TableSegment(marker, tables)

    def use(self, frame: tuple[int, bytes], scan: bytes) -> None:
        """Note that a scan begins: what it needs stays. Of a scan of unusual coding or a broken one, all that holds."""
        needed = self._needed(frame, scan)
        for key, table in self.latest.items():
            table.is_used |= needed is None or key in needed

    def _needed(self, frame: tuple[int, bytes], scan: bytes) -> set[Key] | None:
        marker, body = frame
        parts = _components(body)
        count = scan[0] if scan else 0
        names = set(scan[1 : 1 + 2 * count : 2])
        if marker not in USUAL or len(scan) != 4 + 2 * count or not names <= {name for name, _, _ in parts}:
            return None
        needed = {(RESTARTS, 0), *((QUANTISATION, q) for name, _, q in parts if name in names - self.latched)}
        self.latched |= names
        first, is_refined = scan[-3], scan[-1] >> 4
        for codes in scan[2 : 1 + 2 * count : 2]:
            if marker != PROGRESSIVE or not (first or is_refined):
                needed.add((HUFFMAN, codes >> 4))
            if marker != PROGRESSIVE or first:
                needed.add((HUFFMAN, 0x10 | codes & 15))
        return needed

    def restarts(self, frame: tuple[int, bytes], scan: bytes) -> int | None:
        """Return how many restart markers stand in a scan's data (ITU T.81, B.2.4.4), None where it is not known."""
        marker, body = frame
        parts = _components(body)
        names = set(scan[1 : 1 + 2 * scan[0] : 2]) if scan else set()
        factors = [(one >> 4, one & 15) for name, one, _ in parts if name in names]
        if marker not in USUAL or not factors or any(0 in (one >> 4, one & 15) for _, one, _ in parts):
            return None
        table = self.latest.get((RESTARTS, 0))
        interval = int.from_bytes(table.data[:2], "big") if table else 0
        if not interval:
            return 0
        height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        across, down = max(one >> 4 for _, one, _ in parts), max(one & 15 for _, one, _ in parts)
        if len(factors) == 1:  # a scan of one component counts its own blocks
            width, height = -(-width * factors[0][0] // across), -(-height * factors[0][1] // down)
            across = down = 1
        return (-(-width // (8 * across)) * -(-height // (8 * down)) - 1) // interval


def scan_data(data: bytes, at: int, restarts: int | None) -> tuple[bytes, int]:
    """Return (a scan's data from `at` on less fill bytes and needless restarts, where they end in the file).

    Raises ImageFault where more than a few bytes stand behind more restarts than the picture has.
    """
    first = MARKER.search(data, at)
    if first and not ODD.match(first[0]):
        return data[at : first.start()], first.start()
    ended = AFTER_SCAN.search(data, at)
    stop = ended.start() if ended else len(data)
    part = data[at:stop].rstrip(b"\xff") if ended else data[at:stop]
    if b"\xff\xff" in part:
        part = FILL.sub(b"\xff", part)
    beyond = None if restarts is None else next(itertools.islice(ODD.finditer(part), restarts, None), None)
    if not beyond:
        return part, stop
    rest = ODD.sub(b"", part[beyond.start() :])
    if len(rest) > LOOSE_BYTES:
        raise ImageFault("corrupt", f"JPEG: {len(rest)} bytes behind the last restart interval of a scan")
    return part[: beyond.start()], stop


def _components(frame: bytes) -> list[tuple[int, int, int]]:
    """Return (name, sampling factors, quantisation table) of each component."""
    return [(frame[at], frame[at + 1], frame[at + 2]) for at in range(6, min(6 + 3 * frame[5], len(frame) - 2), 3)]


def _split(marker: int, body: bytes) -> list[_Table]:
    """Return the tables of a segment's body (B.2.4); a body that is not made of tables as one that is used."""
    if marker == RESTARTS:
        return [_Table((marker, 0), body, len(body) != 2)]
    tables: dict[int, _Table] = {}  # a table that stands twice in a segment is used in its last form, if at all
    at = 0
    while at < len(body):
        if marker == HUFFMAN:
            number, size = body[at], 17 + sum(body[at + 1 : at + 17])
        else:
            number, size = body[at] & 15, 129 if body[at] >> 4 else 65
        if at + size > len(body) or number & ~0x10 >= TABLES_OF_A_KIND:
            return [_Table((marker, -1), body, is_used=True)]
        tables.pop(number, None)
        tables[number] = _Table((marker, number), body[at : at + size])
        at += size
    return list(tables.values())
