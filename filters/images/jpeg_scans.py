"""Read a JPEG's scans to their end and say what libjpeg warns of: data that are missing, damaged, or too many.

Pillow and OpenCV drop libjpeg's warnings and show what came, the rest grey. simplejpeg gives the first of them as an
error.
"""

import re

from filters.images.header import ImageFault
from filters.images.jpeg import AFTER_SCAN, APP0, COMMENT, FRAMES, PROGRESSIVE, SOS, next_segment, segment

MISSING = re.compile(
    r"Premature end of JPEG file|premature end of data segment|found marker 0x(?:d9|e.) instead of RST"
)
DAMAGED = re.compile(r"bad Huffman code|bad arithmetic code|instead of RST|Inconsistent progression sequence")
SURPLUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
LOOSE_BYTES = 64
"""Bytes that may stand behind a scan's data. Cameras leave a few; of more, only padding is harmless: a scan whose data
are not used up was damaged, or belongs to a picture of more rows."""
MOST_CUTS = 2  # scans of one file that may have such bytes; each costs a decode, and hostile files have slow ones
WHOLE_SEQUENTIAL = b"\0\x3f\0"  # what a sequential scan's header must end with; decoders do not look at it


def whole_scans(pixels: bytes) -> tuple[bytes, bool]:
    """Return (a JPEG less what stands behind its scans' data, whether it was read to its end).

    `pixels`: the JPEG without metadata, up to its end mark. It is decoded at an eighth of its size: all data are read,
    few are transformed. Raises ImageFault: truncated where data are missing, corrupt where they are damaged. What
    libjpeg cannot read at all is not judged here.
    """
    for _ in range(MOST_CUTS + 1):
        said = _warning(pixels)
        if MISSING.search(said):
            raise ImageFault("truncated", f"JPEG: {said}")
        surplus = SURPLUS.search(said)
        if not surplus:
            if DAMAGED.search(said):
                raise ImageFault("corrupt", f"JPEG: {said}")
            return pixels, not said
        pixels = _without(pixels, int(surplus[1]), int(surplus[2], 16), said)
    raise ImageFault("corrupt", f"JPEG: {said} and in {MOST_CUTS} scans before")


def _warning(pixels: bytes) -> str:
    """Return libjpeg's first warning or error, "" for none."""
    import simplejpeg

    stream, colours = _bare(pixels)
    try:
        simplejpeg.decode_jpeg(stream, "CMYK" if colours == 4 else "GRAY", True, True, 1, 1, 1)
    except ValueError as error:
        return str(error)
    return ""


def _bare(pixels: bytes) -> tuple[bytes, int]:
    """Return (the same scans without what libjpeg warns of in vain, number of components).

    Marks of JFIF and Adobe in a version of their own, and a sequential scan's needless parameters, change no pixel. An
    empty segment behind each scan, APP0 to APP15 in turn, says in a warning which scan it is about.
    """
    parts, at, colours, sequential, scans = [pixels[:2]], 2, 0, False, 0
    try:
        while True:
            marker, body, end = next_segment(pixels, at)
            if marker in FRAMES and len(body) > 5:
                sequential, colours = marker not in PROGRESSIVE, body[5]
            if marker == SOS:
                body = body[:-3] + WHOLE_SEQUENTIAL if sequential else body
                ended = AFTER_SCAN.search(pixels, end)
                stop = ended.start() if ended else len(pixels)
                parts += [segment(SOS, body), pixels[end:stop], segment(APP0 + scans % 16, b"")]
                scans, end = scans + 1, stop
            elif not APP0 <= marker <= APP0 + 15 and marker != COMMENT:
                parts.append(pixels[at:end])
            at = end
            if at >= len(pixels):
                return b"".join(parts), colours
    except ImageFault:
        return b"".join([*parts, pixels[at:]]), colours


def _without(pixels: bytes, count: int, marker: int, said: str) -> bytes:
    """Return the JPEG without the last `count` bytes of the scan that the marker names. Raises ImageFault where they
    are picture data."""
    ends = [ended.start() for ended in _scan_ends(pixels)]
    scan = marker - APP0
    if not 0 <= scan < len(ends):
        raise ImageFault("corrupt", f"JPEG: {said}")
    surplus = pixels[ends[scan] - count : ends[scan]]
    if count > LOOSE_BYTES and len(set(surplus)) > 1:
        raise ImageFault("corrupt", f"JPEG: {count} bytes of a scan's data lie beyond the picture")
    return pixels[: ends[scan] - count] + pixels[ends[scan] :]


def _scan_ends(pixels: bytes) -> "list[re.Match[bytes]]":
    """Return where each scan's data end."""
    ends, at = [], 2
    try:
        while True:
            marker, _, at = next_segment(pixels, at)
            if marker == SOS and (ended := AFTER_SCAN.search(pixels, at)):
                ends.append(ended)
                at = ended.start()
    except ImageFault:
        return ends
