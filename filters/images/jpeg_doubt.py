"""Judge a JPEG that Pillow alone reads, such as one of rare sampling factors: Pillow drops libjpeg's warnings.

A scan whose data are whole shows the same picture whatever stands behind them; one that ends early shows what is put
there. And data of which the end can be cut off without any change are more than the picture needs.
"""

import hashlib
import io
import re

from filters.images.header import ImageFault
from filters.images.jpeg import FRAMES, SOS, next_segment
from filters.images.jpeg_tables import AFTER_SCAN, LOOSE_BYTES, RESTARTS, USUAL, Tables

RESTART = re.compile(rb"\xff[\xd0-\xd7]")
BEHIND = bytes.fromhex("a55a96c3695a3cb4d2871e78e14bb7812d7e42f0a53c5ac3")
"""What is put behind a scan's data, and behind each restart interval: no marker, and no run of zeros, with which
libjpeg fills up what is missing."""
MOST_CUT = 12  # scans that are tried without their end; encoders make about ten, and each try costs a decode
MOST_SHOWN = 1 << 24  # pixels above which a picture is compared at a half, a quarter or an eighth of its size

Scan = tuple[int, int]  # where its data begin and end


def check_what_shows(pixels: bytes) -> None:
    """Raise ImageFault for a Huffman-coded JPEG, without metadata and up to its end mark, that lacks data (truncated)
    or has data that no picture needs (corrupt). What Pillow refuses is left to it."""
    frame, scans, restarts = _walk(pixels)
    if frame is None or not scans:
        return
    for (start, stop), wanted in zip(scans, restarts, strict=True):
        found = len(RESTART.findall(pixels, start, stop))
        if wanted is not None and found < wanted:
            raise ImageFault("truncated", f"JPEG: {found} of {wanted} restart markers of a scan")
    seen = _shown(pixels)
    if seen is None:
        return
    if _shown(_filled(pixels, scans)) != seen:
        raise ImageFault("truncated", "JPEG: what is shown changes with what stands behind a scan's data")
    all_shown = _rounded(pixels, *frame) if len(scans) == 1 else pixels
    seen = _shown(all_shown)
    for start, stop in scans[:MOST_CUT] if seen else ():
        end = stop - LOOSE_BYTES - 1
        if end > start and len(set(pixels[end:stop])) > 1 and _shown(_cut(all_shown, end, stop)) == seen:
            raise ImageFault("corrupt", f"JPEG: more than {LOOSE_BYTES} bytes of a scan's data lie beyond the picture")


def _walk(pixels: bytes) -> tuple[tuple[int, bytes] | None, list[Scan], list[int | None]]:
    """Return (where the frame's body begins and the body, scans, how many restart markers belong to each); no frame for
    one of another coding."""
    tables, frame, place, at = Tables(), (0, b""), 0, 2
    scans: list[Scan] = []
    restarts: list[int | None] = []
    try:
        while True:
            marker, body, end = next_segment(pixels, at)
            if marker in FRAMES:
                frame, place = (marker, body), end - len(body)
            elif marker == RESTARTS:
                tables.take(marker, body)
            elif marker == SOS:
                ended = AFTER_SCAN.search(pixels, end)
                restarts.append(tables.restarts(frame, body))
                scans.append((end, ended.start() if ended else len(pixels)))
                end = scans[-1][1]
            at = end
    except ImageFault:
        return ((place, frame[1]) if frame[0] in USUAL else None), scans, restarts


def _filled(pixels: bytes, scans: list[Scan]) -> bytes:
    """Return the JPEG with BEHIND after every restart interval and scan."""
    parts, at = list[bytes](), 0
    for start, stop in scans:
        parts += [pixels[at:start], RESTART.sub(lambda mark: BEHIND + mark[0], pixels[start:stop]), BEHIND]
        at = stop
    return b"".join([*parts, pixels[at:]])


def _cut(pixels: bytes, end: int, stop: int) -> bytes:
    return pixels[:end] + BEHIND + pixels[stop:]


def _rounded(pixels: bytes, place: int, frame: bytes) -> bytes:
    """Return a JPEG of one scan with whole units in its width and height: all of its blocks are shown then."""
    factors = frame[7::3]
    across, down = 8 * max(one >> 4 for one in factors), 8 * max(one & 15 for one in factors)
    if not across or not down:
        return pixels
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sides = (min(0xFFFF, -(-side // unit) * unit) for side, unit in ((height, down), (width, across)))
    return pixels[: place + 1] + b"".join(side.to_bytes(2, "big") for side in sides) + pixels[place + 5 :]


def _shown(pixels: bytes) -> bytes | None:
    """Return the digest of what Pillow shows, None where it refuses."""
    from PIL import JpegImagePlugin

    try:
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(pixels))
        scale = next(scale for scale in (1, 2, 4, 8) if picture.width * picture.height <= MOST_SHOWN * scale**2)
        picture.draft("", (picture.width // scale, picture.height // scale))
        return hashlib.sha256(picture.tobytes()).digest()
    except (OSError, SyntaxError, ValueError, StopIteration):
        return None
