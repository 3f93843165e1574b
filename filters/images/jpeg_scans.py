"""Read a JPEG's scans to their end and say what libjpeg warns of: data that are missing, damaged, or too many.

Pillow and OpenCV drop libjpeg's warnings and show what came, the rest grey. simplejpeg gives the first of them as an
error.
"""

import re
from typing import TYPE_CHECKING, Any

from filters.images.header import ImageFault
from filters.images.jpeg import ADOBE, APP0, COMMENT, FRAMES, PROGRESSIVE, SOS, next_segment, segment
from filters.images.jpeg_doubt import check_what_shows
from filters.images.jpeg_tables import AFTER_SCAN, LOOSE_BYTES

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

MISSING = re.compile(
    r"Premature end of JPEG file|premature end of data segment|found marker 0x(?:d9|e.) instead of RST"
)
DAMAGED = re.compile(r"bad Huffman code|bad arithmetic code|instead of RST|Inconsistent progression sequence")
UNREAD = re.compile(r"Unsupported (?:color conversion|JPEG process|JPEG data precision)")
"""What this decoder cannot do; another may. So it is with an error in the header."""
SURPLUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
LIKE_PADDING = 2  # bytes at the end of a scan's data that may look like the padding behind them
FEW_BYTES = 8  # behind a scan's data that are never more than the picture
MARKS = 16  # APP0 to APP15
MOST_CUTS = 2  # scans of one file that may have such bytes; each costs a decode, and hostile files have slow ones
WHOLE_SEQUENTIAL = b"\0\x3f\0"  # what a sequential scan's header must end with; decoders do not look at it
SCALES = (8, 4, 2, 1)
JFIF_VERSION = b"JFIF\0\1\1"
ADOBE_COLOURS = 11  # the byte of Adobe's mark that says how three components are coded: 0 as RGB, 1 as YCbCr
MOST_AT_ONCE = 1 << 24
"""Pixels above which a JPEG is read twice, for warnings and for what it shows: an array of them is a second copy."""


def scale_of(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Return the 8, 4, 2 or 1 by which Pillow's `draft` divides a JPEG's size (width, height) where it is asked for
    another."""
    least = min(size[0] // max(1, wanted[0]), size[1] // max(1, wanted[1]))
    return next((scale for scale in SCALES if least >= scale), 1)


def clean_pixels(pixels: bytes, size: tuple[int, int], scale: int) -> "Pixels | None":
    """Return the RGB pixels, (height, width, 3), of a JPEG of three components of which libjpeg warns of nothing.

    `size`: width and height as coded, which are divided by `scale`. The pixels are those that Pillow makes of the same
    scans. None where anything is said, or the picture is too large: `whole_scans` judges it then.
    """
    import simplejpeg

    width, height = (-(-side // scale) for side in size)
    if width * height > MOST_AT_ONCE:
        return None
    try:
        found = simplejpeg.decode_jpeg(_bare(pixels, has_colour=True)[0], "RGB", False, False, height, width, 1)
    except ValueError:
        return None
    return found if found.shape == (height, width, 3) else None


def whole_scans(pixels: bytes) -> tuple[bytes, bool]:
    """Return (a JPEG less what stands behind its scans' data, whether it was read to its end).

    `pixels`: the JPEG without metadata, up to its end mark. It is decoded at an eighth of its size: all data are read,
    few are transformed. Raises ImageFault: truncated where data are missing, corrupt where they are damaged or libjpeg
    gives up amid them. What this decoder cannot read is judged by what Pillow shows of it.
    """
    for _ in range(MOST_CUTS + 1):
        said = _warning(pixels)
        if MISSING.search(said):
            raise ImageFault("truncated", f"JPEG: {said}")
        surplus = SURPLUS.search(said)
        if not surplus:
            if said and (DAMAGED.search(said) or not _is_unread(pixels, said)):
                raise ImageFault("corrupt", f"JPEG: {said}")
            if said:
                check_what_shows(pixels)
            return pixels, not said
        pixels = _without(pixels, int(surplus[1]), int(surplus[2], 16), said)
    raise ImageFault("corrupt", f"JPEG: {said} and in {MOST_CUTS} scans before")


def _is_unread(pixels: bytes, said: str) -> bool:
    """Say whether an error tells of what this decoder cannot do, not of the data: its header is refused already."""
    import simplejpeg

    if UNREAD.search(said):
        return True
    try:
        simplejpeg.decode_jpeg_header(_bare(pixels)[0], strict=False)
    except ValueError:
        return True
    return False


def _warning(pixels: bytes, marks: int = 1) -> str:
    """Return libjpeg's first warning or error, "" for none. `marks`: scans in a row that bear the same mark."""
    import simplejpeg

    stream, colours = _bare(pixels, marks)
    try:
        simplejpeg.decode_jpeg(stream, "CMYK" if colours == 4 else "GRAY", True, True, 1, 1, 1)
    except ValueError as error:
        return str(error)
    return ""


def _bare(pixels: bytes, marks: int = 1, *, has_colour: bool = False) -> tuple[bytes, int]:
    """Return (the same scans without what libjpeg warns of in vain, number of components).

    Marks of JFIF and Adobe in a version of their own, and a sequential scan's needless parameters, change no pixel;
    with `has_colour` what the marks say of three components stays. An empty segment behind each scan, APP0 to APP15 in
    turn, each for `marks` scans, says in a warning which scan it is about.
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
                parts += [segment(SOS, body), pixels[end:stop], segment(APP0 + scans // marks % MARKS, b"")]
                scans, end = scans + 1, stop
            elif not APP0 <= marker <= APP0 + 15 and marker != COMMENT:
                parts.append(pixels[at:end])
            elif has_colour:
                parts.append(_colours(marker, body))
            at = end
            if at >= len(pixels):
                return b"".join(parts), colours
    except ImageFault:
        return b"".join([*parts, pixels[at:]]), colours


def _colours(marker: int, body: bytes) -> bytes:
    """Return JFIF's or Adobe's mark in the form that libjpeg knows, b"" for any other segment."""
    if marker == APP0 and body.startswith(b"JFIF\0"):
        return segment(marker, JFIF_VERSION + body[len(JFIF_VERSION) :])
    if marker == ADOBE and body.startswith(b"Adobe") and len(body) > ADOBE_COLOURS:
        return segment(marker, body[:ADOBE_COLOURS] + bytes([min(1, body[ADOBE_COLOURS])]))
    return b""


def _without(pixels: bytes, count: int, marker: int, said: str) -> bytes:
    """Return the JPEG less `count` bytes at the end of the scan that the marker names, or less all that looks like
    them. Raises ImageFault where they are picture data.

    Padding is of one value. So is what a broken download leaves in place of data; taken off too, it is missed.
    """
    ends = _scan_data(pixels)
    scan = marker - APP0
    if len(ends) > MARKS and 0 <= scan < MARKS:
        again = SURPLUS.search(_warning(pixels, MARKS))
        scan += MARKS * (int(again[2], 16) - APP0) if again else len(ends)
    if not 0 <= scan < len(ends):
        raise ImageFault("corrupt", f"JPEG: {said}")
    start, end = ends[scan]
    surplus = pixels[end - count : end]
    if count > LOOSE_BYTES or (count > FEW_BYTES and 2 * count > end - start):
        if len(set(surplus)) > 1:
            raise ImageFault("corrupt", f"JPEG: {count} bytes of a scan's data lie beyond the picture")
        count = max(count, end - len(pixels[:end].rstrip(surplus[:1])) - LIKE_PADDING)
    return pixels[: end - count] + pixels[end:]


def _scan_data(pixels: bytes) -> list[tuple[int, int]]:
    """Return where each scan's data begin and end."""
    found, at = [], 2
    try:
        while True:
            marker, _, at = next_segment(pixels, at)
            if marker == SOS and (ended := AFTER_SCAN.search(pixels, at)):
                found.append((at, ended.start()))
                at = ended.start()
    except ImageFault:
        return found
