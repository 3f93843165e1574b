"""Walk GIF and BMP, the two old formats without chunks: size, and whether a second frame comes."""

import struct

from filters.images.header import ImageFault, Outline, cut

MAX_SUB_BLOCKS = 500_000  # of 255 bytes in honest files: 127 MB
RLE = {1, 2}  # BMP's run-length codings
MAX_RLE = 1 << 20  # bytes; Pillow decodes these in Python, run by run
BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # bytes of the header's known versions


def gif(data: bytes) -> Outline:
    """Return the outline of a GIF's first frame. Raises ImageFault."""
    if len(data) < 13:
        raise cut("GIF", "header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _table(flags)
    kept = [data[:at]]
    control, at = _skip_extensions(data, at)
    if data[at : at + 1] != b",":
        raise cut("GIF", "header") if at >= len(data) else ImageFault("corrupt", "GIF without a picture")
    if at + 11 > len(data):
        raise cut("GIF", "header")
    left, top, w, h, flags = struct.unpack_from("<HHHHB", data, at + 1)
    end = _sub_blocks(data, at + 11 + _table(flags))
    kept += [control, data[at:end], b";"]
    complete = end <= len(data)
    _, after = _skip_extensions(data, end)
    width, height = max(width, left + w), max(height, top + h)
    if not width or not height or not w or not h:
        raise ImageFault("corrupt", f"GIF of {width} x {height} pixels with a frame of {w} x {h}")
    return Outline("GIF", width, height, b"".join(kept), 2 if data[after : after + 1] == b"," else 1, complete=complete)


def frame_at(data: bytes) -> tuple[int, int, int, int, bool]:
    """Return (left, top, width, height, interlaced) of the first frame of a GIF that `gif` has walked."""
    _, at = _skip_extensions(data, 13 + _table(data[10]))
    *place, flags = struct.unpack_from("<HHHHB", data, at + 1)
    return place[0], place[1], place[2], place[3], bool(flags & 0x40)


def with_transparency(data: bytes, index: int) -> bytes:
    """Return a GIF that `gif` has walked with colour `index` as the transparent one, whichever it was before."""
    start = 13 + _table(data[10])
    _, at = _skip_extensions(data, start)
    return b"".join([data[:start], b"!\xf9\4\1\0\0", bytes([index]), b"\0", data[at:]])


def _table(flags: int) -> int:
    """Return the bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: bytes, at: int) -> int:
    """Return where a chain of sub-blocks ends; beyond the file where it is cut."""
    for _ in range(MAX_SUB_BLOCKS):
        if at >= len(data):
            return len(data) + 1
        length = data[at]
        at += 1 + length
        if not length:
            return at
    raise ImageFault("corrupt", f"GIF of more than {MAX_SUB_BLOCKS} sub-blocks")


def _skip_extensions(data: bytes, at: int) -> tuple[bytes, int]:
    """Return (the last graphic control extension, which holds transparency; where the extensions end)."""
    control = b""
    for _ in range(MAX_SUB_BLOCKS):
        if data[at : at + 1] != b"!":
            return control, at
        end = _sub_blocks(data, at + 2)
        if data[at + 1 : at + 2] == b"\xf9":
            control = data[at:end]
        at = end
    raise ImageFault("corrupt", f"GIF of more than {MAX_SUB_BLOCKS} extensions")


def is_bmp(data: bytes) -> bool:
    """Say whether a file that starts with BM is a BMP: two letters alone are too little."""
    return len(data) < 18 or int.from_bytes(data[14:18], "little") in BMP_HEADERS


def bmp(data: bytes) -> Outline:
    """Return the outline of a BMP. Raises ImageFault."""
    if len(data) < 54 and not (len(data) >= 26 and data[14] == 12):
        raise cut("BMP", "header")
    offset, header = struct.unpack_from("<I", data, 10)[0], struct.unpack_from("<I", data, 14)[0]
    if header == 12:
        width, height, bits, coding = *struct.unpack_from("<HH", data, 18), struct.unpack_from("<H", data, 24)[0], 0
    else:
        width, height = struct.unpack_from("<ii", data, 18)
        bits, coding = struct.unpack_from("<HI", data, 28)
    height = abs(height)
    if width <= 0 or not height:
        raise ImageFault("corrupt", f"BMP of {width} x {height} pixels")
    if coding in RLE and len(data) > MAX_RLE:
        raise ImageFault("corrupt", f"run-length coded BMP of {len(data)} bytes, at most {MAX_RLE} are read")
    row = (width * bits + 31) // 32 * 4
    return Outline("BMP", width, height, data, complete=coding in RLE or offset + row * height <= len(data))
