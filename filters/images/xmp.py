"""Find XMP packets in a picture's bytes: where each format keeps them, and wherever else one stands in plain sight.

XMP: ISO 16684-1; its places in files: XMP specification part 3. What is damaged is passed over: a walk ends early, and
the look at the whole file still finds what stands there uncompressed.
"""

import struct
import zlib
from collections.abc import Iterator

MAX_PACKET = 4 << 20
"""Bytes of one packet that are read, after decompression."""
MAX_BYTES = 16 << 20
"""Bytes of all packets of a file together."""
MAX_PACKETS = 64
MAX_PARTS = 100_000  # segments or chunks of one file
STANDARD, EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
GUID = 32  # letters of the digest that names the packet to which a piece belongs
KEYWORD = b"XML:com.adobe.xmp"
HEX = b"Raw profile type xmp"  # as ImageMagick writes it into PNG: a name, a length, hexadecimal digits
TAG = 700  # of TIFF
ENDS = ((b"<x:xmpmeta", b"</x:xmpmeta>"), (b"<rdf:RDF", b"</rdf:RDF>"))
PIECE = 4096  # bytes given to the decompressor at a time, so that a broken stream yields what came before the break


def packets(data: bytes) -> Iterator[bytes]:
    """Yield the XMP packets of a file, at most MAX_PACKETS of at most MAX_BYTES together. Raises nothing."""
    total = 0
    for number, packet in enumerate(_found(data)):
        total += len(packet)
        if number >= MAX_PACKETS or total > MAX_BYTES:
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
    if keyword not in (KEYWORD, HEX):
        return
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", b"\0".join(rest[2:].split(b"\0")[2:])
    elif packed:
        rest = rest[1:]
    text = _inflated(rest) if packed else rest
    yield _from_hex(text) if keyword == HEX else text


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
    """Yield every stretch of a file that begins as XMP does; one without an end is cut at MAX_PACKET."""
    seen: list[tuple[int, int]] = []
    for start, end in ENDS:
        at = data.find(start)
        while at >= 0:
            within = next((stop for first, stop in seen if first <= at < stop), 0)
            if not within:
                found = data.find(end, at, at + MAX_PACKET)
                within = found + len(end) if found >= 0 else at + MAX_PACKET
                seen.append((at, within))
                yield data[at:within]
            at = data.find(start, within)
