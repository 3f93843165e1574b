"""Find XMP packets in a picture's bytes: where each format keeps them, and wherever else one stands in plain sight.

XMP: ISO 16684-1; its places in files: XMP specification part 3. What is damaged is passed over: a walk ends early, and
the look at the whole file still finds what stands there uncompressed.
"""

import re
import struct
import zlib
from collections.abc import Iterator

MAX_PACKET = 4 << 20
"""Bytes of one packet that are read, after decompression."""
MAX_BYTES = 16 << 20
"""Bytes of all packets of a file together."""
LEAST = 4096
"""Bytes that the smallest packet counts: so many small ones are no flood."""
MAX_PARTS = 100_000  # segments or chunks of one file
STANDARD, EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
GUID = 32  # letters of the digest that names the packet to which a piece belongs
KEYWORD = b"XML:com.adobe.xmp"
HEX = b"Raw profile type "  # as ImageMagick writes profiles into PNG: a name, a length, hexadecimal digits
PROFILES = {b"xmp", b"APP1", b"app1", b"exif", b"EXIF"}
TAG = 700  # of TIFF
NAME = rb"(?:xmpmeta|RDF)(?![\w.-])"
WIDE_NAME = rb"(?:x\0m\0p\0m\0e\0t\0a|R\0D\0F)(?!\0[\w.-])"
MARKS = (
    (b"", re.compile(rb"<((?:[\w.-]{1,40}:)?" + NAME + rb")")),
    (b"\0", re.compile(rb"<\0((?:(?:[\w.-]\0){1,40}:\0)?" + WIDE_NAME + rb")")),
)
"""(what stands between two letters, how a packet in plain sight begins, whatever its prefix): UTF-8 and UTF-16, whose
two orders look alike from the first `<` on."""
PIECE = 4096  # bytes given to the decompressor at a time, so that a broken stream yields what came before the break


def packets(data: bytes) -> Iterator[bytes]:
    """Yield the XMP packets of a file, MAX_BYTES together; where there is more, the file itself, to be searched as
    text, is the last one. Raises nothing."""
    total = 0
    for packet in _found(data):
        total += max(LEAST, len(packet))
        if total > MAX_BYTES:
            yield data
            return
        yield packet[:MAX_PACKET]


def _found(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\xff\xd8"):
        yield from _jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from _webp(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        yield from _tiff(data)
    yield from _in_plain_sight(data)


def _jpeg(data: bytes) -> Iterator[bytes]:
    """Yield the packet of a JPEG, and its extension put together from the segments that it is cut into."""
    pieces: dict[bytes, list[tuple[int, bytes]]] = {}
    at, size = 2, 0
    for _ in range(MAX_PARTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xD9, 0xDA) or length < 2:
            break
        body = data[at + 4 : at + 2 + length] if marker == 0xE1 else b""
        at += 2 + length
        if body.startswith(STANDARD):
            yield body[len(STANDARD) :]
        elif body.startswith(EXTENDED) and len(body) > len(EXTENDED) + GUID + 8 and size < MAX_PACKET:
            head, text = body[len(EXTENDED) :][: GUID + 8], body[len(EXTENDED) + GUID + 8 :]
            pieces.setdefault(head[:GUID], []).append((int.from_bytes(head[GUID + 4 :], "big"), text))
            size += len(text)
    for found in pieces.values():
        yield b"".join(text for _, text in sorted(found, key=lambda piece: piece[0]))


def _png(data: bytes) -> Iterator[bytes]:
    at = 8
    for _ in range(MAX_PARTS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in (b"iTXt", b"zTXt", b"tEXt"):
            yield from _png_text(kind, data[at + 8 : at + 8 + min(length, MAX_PACKET)])
        at += 12 + length
        if kind == b"IEND" or at + 12 > len(data):
            return


def _png_text(kind: bytes, body: bytes) -> Iterator[bytes]:
    """Yield the packet of a text chunk whose keyword says that it holds one."""
    keyword, _, rest = body.partition(b"\0")
    is_hex = keyword.startswith(HEX) and keyword[len(HEX) :] in PROFILES
    if keyword != KEYWORD and not is_hex:
        return
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", b"\0".join(rest[2:].split(b"\0")[2:])
    elif packed:
        rest = rest[1:]
    text = _inflated(rest) if packed else rest
    yield from _profile(_from_hex(text)) if is_hex else [text]


def _profile(profile: bytes) -> Iterator[bytes]:
    """Yield the packets of what stood in a segment of a JPEG: XMP, or EXIF with XMP in its tag."""
    profile = profile.removeprefix(b"Exif\0\0").removeprefix(STANDARD)
    if profile[:4] in (b"II*\0", b"MM\0*"):
        yield from _tiff(profile)
        yield from _in_plain_sight(profile)
    else:
        yield profile


def _inflated(packed: bytes) -> bytes:
    """Return what a zlib stream holds, up to MAX_PACKET bytes or to where it breaks."""
    stream, out, size = zlib.decompressobj(), list[bytes](), 0
    try:
        for at in range(0, len(packed), PIECE):
            out.append(stream.decompress(packed[at : at + PIECE], MAX_PACKET - size))
            size += len(out[-1])
            if size >= MAX_PACKET or stream.eof:
                break
    except zlib.error:
        pass
    return b"".join(out)


def _from_hex(text: bytes) -> bytes:
    digits = text.split(None, 2)[2:]  # behind the name and the length
    try:
        return bytes.fromhex(digits[0].decode("ascii")) if digits else b""
    except ValueError:
        return b""


def _webp(data: bytes) -> Iterator[bytes]:
    at = 12
    for _ in range(MAX_PARTS):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"XMP ":
            yield data[at + 8 : at + 8 + min(length, MAX_PACKET)]
        at += 8 + length + length % 2
        if at + 8 > len(data):
            return


def _tiff(data: bytes) -> Iterator[bytes]:
    """Yield what tag 700 of the first directory holds."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, size, value = struct.unpack_from(order + "HHII", data, at)
            if tag == TAG:
                yield data[value : value + min(size, MAX_PACKET)]
    except struct.error:
        return


def _in_plain_sight(data: bytes) -> Iterator[bytes]:
    """Yield every stretch of a file that begins as XMP does, UTF-16 without its zeros; one without an end is cut at
    MAX_PACKET."""
    for gap, mark in MARKS:
        found = mark.search(data)
        while found:
            start, close = found.start(), b"<" + gap + b"/" + gap + found[1] + gap + b">"
            end = data.find(close, found.end(), start + MAX_PACKET)
            stop = end + len(close) if end >= 0 else start + MAX_PACKET
            yield data[start:stop].replace(b"\0", b"") if gap else data[start:stop]
            found = mark.search(data, stop)
