"""Walk a TIFF's first directory: size, strips and tiles; and find the orientation in an EXIF block, which is a TIFF
too."""

import itertools
import struct
from collections.abc import Iterator

from filters.images.header import ImageFault, Outline, cut

SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
}  # TIFF 6.0, bytes of one value by field type
INTEGERS = {1: "B", 3: "H", 4: "I"}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS_PER_STRIP, PLANAR = 256, 257, 258, 259, 262, 277, 278, 284
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
ORIENTATION, JPEG_TABLES, ICC = 274, 347, 34675
DECODING = {
    *range(254, 260), 262, 266, ORIENTATION, STRIPS, 277, 278, STRIP_BYTES, 280, 281, 282, 283, 284, 292, 293, 296,
    317, 320,
    *range(321, 326), 332, 333, 334, 336, *range(338, 342), 347, *range(512, 522), *range(529, 533), ICC,
}  # fmt: skip
"""Tags that a decoder needs. Others are struck out: Pillow copies the data of every tag, and many tags may claim the
whole file."""
FIRST, JPEG, YCBCR = 8, 7, 6  # bytes of a TIFF's header; JPEG among compressions; a colour space with fewer samples
MAX_TABLES, MAX_STRIPS = (
    1 << 14,
    30_000,
)  # bytes of JPEG tables; strips or tiles: of 64 x 64 pixels 30,000 are 123 million
TILE_PIXELS = 4096 * 4096  # a tile of more, in a picture smaller than it, only costs memory

Entry = tuple[int, int, int, int, int]  # where it stands, tag, type, count, value or offset


def outline(data: bytes) -> Outline:
    """Return the outline of a TIFF's first page. Raises ImageFault."""
    order = _order(data)
    if data[2:4] in (b"\x2b\x00", b"\x00\x2b"):
        raise ImageFault("not_an_image", "BigTIFF is not read")
    start, entries = _directory(data, order)
    tags = {entry[1]: entry for entry in entries}
    width, height = (_one(data, order, tags.get(tag)) for tag in (WIDTH, HEIGHT))
    if not width or not height:
        raise ImageFault("corrupt", f"TIFF of {width} x {height} pixels")
    if (_one(data, order, tags.get(TILE_WIDTH)) or 0) * (_one(data, order, tags.get(TILE_HEIGHT)) or 0) > max(
        width * height, TILE_PIXELS
    ):
        raise ImageFault("corrupt", "TIFF with tiles far larger than the picture")
    if _one(data, order, tags.get(ORIENTATION)) in range(5, 9):  # Pillow turns a TIFF upright by itself
        width, height = height, width
    return Outline(
        "TIFF",
        width,
        height,
        _stripped(data, order, start, entries),
        complete=_is_complete(data, order, tags),
        missing=_missing(data, order, tags),
    )


def orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block (with or without its `Exif` mark), 1 where it has none or is
    broken."""
    data = exif.removeprefix(b"Exif\0\0")
    try:
        order = _order(data)
        _, entries = _directory(data, order)
    except ImageFault:
        return 1
    found = next((_one(data, order, entry) for entry in entries if entry[1] == ORIENTATION), None)
    return found if found is not None and 1 <= found <= 8 else 1


def upright_exif(exif: bytes) -> bytes:
    """Return an EXIF block whose orientation, where it has one, is 1: upright as it stands."""
    mark = b"Exif\0\0" if exif.startswith(b"Exif\0\0") else b""
    data = bytearray(exif[len(mark) :])
    try:
        order = _order(data)
        _, entries = _directory(data, order)
    except ImageFault:
        return exif
    for at, tag, kind, count, _ in entries:
        if tag == ORIENTATION and kind in INTEGERS and count == 1:
            struct.pack_into(order + INTEGERS[kind], data, at + 8, 1)
    return mark + bytes(data)


def _order(data: bytes | bytearray) -> str:
    if data[:2] not in (b"II", b"MM") or len(data) < 8:
        raise cut("TIFF", "header")
    return "<" if data[:2] == b"II" else ">"


def _directory(data: bytes | bytearray, order: str) -> tuple[int, list[Entry]]:
    """Return where the first directory starts, and its entries."""
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        raise cut("TIFF", "directory")
    (count,) = struct.unpack_from(order + "H", data, start)
    if start + 2 + 12 * count > len(data):
        raise cut("TIFF", "directory")
    return start, list(_entries(data, order, start + 2, count))


def _entries(data: bytes | bytearray, order: str, start: int, count: int) -> Iterator[Entry]:
    for at in range(start, start + 12 * count, 12):
        tag, kind, n, value = struct.unpack_from(order + "HHII", data, at)
        yield at, tag, kind, n, value


def _values(data: bytes, order: str, entry: Entry) -> tuple[int, ...]:
    """Return an entry's integers; none where they are of another type or lie outside the file."""
    at, _, kind, count, value = entry
    if kind not in INTEGERS:
        return ()
    where = at + 8 if count * SIZES[kind] <= 4 else value
    if where + count * SIZES[kind] > len(data):
        return ()
    return struct.unpack_from(f"{order}{count}{INTEGERS[kind]}", data, where)


def _one(data: bytes, order: str, entry: Entry | None) -> int | None:
    return next(iter(_values(data, order, entry)), None) if entry and entry[3] == 1 else None


def _is_complete(data: bytes, order: str, tags: dict[int, Entry]) -> bool:
    for offsets, sizes in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
        if offsets in tags and sizes in tags:
            ends = zip(_values(data, order, tags[offsets]), _values(data, order, tags[sizes]), strict=False)
            return max((offset + size for offset, size in ends), default=len(data) + 1) <= len(data)
    return True


def _missing(data: bytes, order: str, tags: dict[int, Entry]) -> str:
    """Say which strips or tiles the file does not hold; "" for none. Pillow leaves them black, or reads the header as
    pixels."""

    def one(tag: int, otherwise: int) -> int:
        return _one(data, order, tags.get(tag)) or otherwise

    width, height, samples = one(WIDTH, 0), one(HEIGHT, 0), one(SAMPLES, 1)
    tiled = TILES in tags
    across, down = (one(TILE_WIDTH, width), one(TILE_HEIGHT, height)) if tiled else (width, one(ROWS_PER_STRIP, height))
    planes = samples if one(PLANAR, 1) == 2 else 1
    wanted = -(-width // across) * -(-height // down) * planes
    offsets = _values(data, order, tags[TILES if tiled else STRIPS]) if tags.keys() & {TILES, STRIPS} else ()
    what = "tiles" if tiled else "strips"
    if len(offsets) < wanted:
        return f"{len(offsets)} of {wanted} {what}"
    empty = sum(offset < FIRST for offset in offsets[:wanted])
    if empty:
        return f"{empty} of {wanted} {what} lie nowhere"
    if one(COMPRESSION, 1) != 1 or one(PHOTOMETRIC, 0) == YCBCR or tiled:
        return ""
    bits = _values(data, order, tags[BITS]) if BITS in tags else (1,)
    row = (width * sum(bits if planes == 1 else bits[:1]) + 7) // 8
    per_plane = wanted // planes
    last = height - (per_plane - 1) * down
    short = sum(
        offset + row * (last if number % per_plane == per_plane - 1 else down) > len(data)
        for number, offset in enumerate(offsets[:wanted])
    )
    return f"{short} of {wanted} {what} end behind the file" if short else ""


def jpeg_strips(data: bytes) -> Iterator[bytes]:
    """Yield each strip or tile of a TIFF of JPEG data as a JPEG of its own (TIFF Technical Note 2).

    It ends where there are more of them, or more bytes in them, than an honest file has.
    """
    order = _order(data)
    tags = {entry[1]: entry for entry in _directory(data, order)[1] if entry[2]}
    if _one(data, order, tags.get(COMPRESSION)) != JPEG:
        return
    tables = b"\xff\xd8"
    if JPEG_TABLES in tags:
        _, _, _, count, where = tags[JPEG_TABLES]
        tables = data[where : where + min(count, MAX_TABLES)].removesuffix(b"\xff\xd9")
    places, sizes = (TILES, TILE_BYTES) if TILES in tags else (STRIPS, STRIP_BYTES)
    if places not in tags or sizes not in tags:
        return
    left = len(data)
    ends = zip(_values(data, order, tags[places]), _values(data, order, tags[sizes]), strict=False)
    for at, size in itertools.islice(ends, MAX_STRIPS):
        left -= size
        if left < 0:
            return
        yield tables + data[at + 2 : at + size]


def _stripped(data: bytes, order: str, start: int, entries: list[Entry]) -> bytes:
    """Return the file with a directory of what decoding needs, each tag once, and no further page.

    Raises ImageFault where the tags' data together are larger than the file, which no honest file's are.
    """
    patched = bytearray(data)
    seen: set[int] = set()
    total = 0
    for at, tag, kind, count, value in entries:
        if tag in DECODING and tag not in seen:
            seen.add(tag)
            size = count * SIZES.get(kind, 0)
            if size > 4 and value + size > len(data):
                raise cut("TIFF", f"tag {tag}")
            total += size
        else:
            struct.pack_into(order + "H", patched, at + 2, 0)  # a type that does not exist: readers pass over it
    if total > len(data):
        raise ImageFault("corrupt", f"TIFF of {len(data)} bytes whose tags claim {total}")
    after = start + 2 + 12 * len(entries)
    patched[after : after + 4] = bytes(4)
    return bytes(patched)
