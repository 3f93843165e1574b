"""Walk PNG, WebP and AVIF, containers of named chunks: size, frames, orientation; leave metadata out."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from filters.images.header import MAX_PROFILE, ImageFault, Outline, cut
from filters.images.jpeg import exif_segment, xmp_segment
from filters.images.tiff import orientation

PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword, not compressed, no language
MAX_SEGMENTS = 8  # of EXIF and XMP of one file that are carried along
MAX_CHUNKS = 100_000
"""Chunks in one file: 50 MB in the 8 KB pieces that libpng writes are 6,400."""


def png(data: bytes) -> Outline:
    """Return the outline of a PNG. Raises ImageFault."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise cut("PNG", "header") if len(data) < 33 else ImageFault("corrupt", "PNG without IHDR")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if not width or not height:
        raise ImageFault("corrupt", f"PNG of {width} x {height} pixels")
    kept, turned, frames, ended, started = [PNG_MARK], 1, 1, False, False
    profile, metadata = None, list[bytes]()
    for kind, start, end in png_chunks(data):
        body = memoryview(data)[start + 8 : end - 4]
        started = started or kind == b"IDAT"
        if kind == b"acTL" and not started and int.from_bytes(body[:4], "big") > 1:
            frames = 2
        elif kind == b"eXIf":
            turned = orientation(bytes(body[:65_536]))
            metadata += exif_segment(bytes(body[:65_536]))
        elif kind == b"iCCP" and not started:
            profile = _png_profile(bytes(body))
        elif kind == b"iTXt" and body[: len(PNG_XMP)] == PNG_XMP:
            metadata += xmp_segment(bytes(body[len(PNG_XMP) : 65_536]))
        elif kind == b"tRNS":
            kept.append(_transparency(bytes(body), depth, colour))
        elif kind in PNG_NEEDED:
            kept.append(data[start:end])
        ended = ended or kind == b"IEND"
    told: dict[str, Any] = {"orientation": turned, "profile": profile, "metadata": tuple(metadata[:MAX_SEGMENTS])}
    return Outline("PNG", width, height, b"".join(kept), frames, complete=ended, **told)


def _png_profile(body: bytes) -> bytes | None:
    """Return the colour profile of an iCCP chunk: None for one that is broken, or larger than any that is used.

    Pillow refuses the whole picture where one has more than 1 MB.
    """
    name, _, packed = body.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(packed[1:], MAX_PROFILE + 1)
    except zlib.error:
        return None
    return profile if name and packed[:1] == b"\0" and inflate.eof and len(profile) <= MAX_PROFILE else None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each chunk up to IEND; the last may be cut short."""
    at = len(PNG_MARK)
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not kind.isalpha():
            raise ImageFault("corrupt", f"PNG chunk named {kind!r}")
        yield kind, at, min(at + 12 + length, len(data))
        at += 12 + length
        if kind == b"IEND":
            return
    raise ImageFault("corrupt", f"PNG of more than {MAX_CHUNKS} chunks")


def _transparency(body: bytes, depth: int, colour: int) -> bytes:
    """Return a tRNS chunk whose see-through colour is in the 8-bit scale that Pillow gives the pixels of grey and RGB
    pictures."""
    values = struct.unpack(f">{len(body) // 2}H", body[: len(body) // 2 * 2])
    if colour == 0 and depth in (2, 4):
        body = struct.pack(f">{len(values)}H", *(value * 255 // (2**depth - 1) & 0xFFFF for value in values))
    if colour == 2 and depth == 16:
        body = struct.pack(f">{len(values)}H", *(value >> 8 for value in values))
    named = b"tRNS" + body
    return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))


def webp(data: bytes) -> Outline:
    """Return the outline of a WebP (RFC 9649). Raises ImageFault."""
    sizes: list[tuple[int, int]] = []
    frames, turned, metadata = 0, 1, list[bytes]()
    for kind, start, end in _riff_chunks(data):
        body = data[start : min(end, start + 65_536)]
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            sizes.append(_webp_size(kind, body))
        if kind == b"EXIF":
            turned = orientation(body)
            metadata += exif_segment(body)
        if kind == b"XMP ":
            metadata += xmp_segment(body)
        frames += kind == b"ANMF"
    if not sizes:
        raise cut("WebP", "header")
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    complete = 8 + int.from_bytes(data[4:8], "little") <= len(data)
    told: dict[str, Any] = {"orientation": turned, "metadata": tuple(metadata[:MAX_SEGMENTS])}
    return Outline("WEBP", width, height, data, min(max(frames, 1), 2), complete=complete, **told)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, min(at + 8 + length, len(data))
        at += 8 + length + length % 2
    raise ImageFault("corrupt", f"WebP of more than {MAX_CHUNKS} chunks")


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    if len(body) < 10:
        raise cut("WebP", "header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", body, 6)
    if not width & 0x3FFF or not height & 0x3FFF:
        raise ImageFault("corrupt", "WebP without pixels")
    return width & 0x3FFF, height & 0x3FFF


def is_avif(data: bytes) -> bool:
    """Say whether an ISO media file calls itself AVIF among its brands."""
    return data[4:8] == b"ftyp" and bool(
        {b"avif", b"avis"} & {data[at : at + 4] for at in range(8, min(64, int.from_bytes(data[:4], "big")), 4)}
    )


def avif(data: bytes) -> Outline:
    """Return the outline of an AVIF: the largest size that any of its items claims. Raises ImageFault.

    EXIF items are renamed so that the decoder passes over them; AVIF turns pictures by its own boxes, not by EXIF.
    """
    parts: list[bytes] = []
    kinds: set[bytes] = set()
    sizes, at, complete = [(0, 0)], 0, True
    while at + 8 <= len(data) and len(parts) < MAX_CHUNKS:
        length = int.from_bytes(data[at : at + 4], "big")
        end = (
            len(data)
            if length == 0
            else at + length
            if length >= 8
            else at + int.from_bytes(data[at + 8 : at + 16], "big")
        )
        if end < at + (16 if length == 1 else 8) or 2 <= length < 8:
            raise ImageFault("corrupt", f"AVIF box of length {length}")
        complete = complete and end <= len(data)
        box = data[at:end]
        kinds.add(box[4:8])
        if box[4:8] != b"mdat":
            sizes += [struct.unpack(">II", found[1]) for found in re.finditer(rb"ispe\0\0\0\0(.{8})", box, re.DOTALL)]
            box = box.replace(b"Exif", b"skip")
        parts.append(box)
        at = end
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    if not width or not height:
        raise ImageFault("corrupt", "AVIF without a size") if complete and b"meta" in kinds else cut("AVIF", "header")
    return Outline("AVIF", width, height, b"".join([*parts, data[at:]]), complete=complete and b"mdat" in kinds)
