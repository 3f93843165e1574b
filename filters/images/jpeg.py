"""Walk a JPEG's segments up to its first scan: size, coding, orientation; leave metadata out."""

from filters.images.header import ImageFault, Outline, cut
from filters.images.tiff import orientation

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
ALONE = {0x01, SOI, *range(0xD0, 0xD8)}  # markers without a length (ITU T.81, B.1.1.3)
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; C4, C8 and CC are tables and an extension
USUAL = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: Huffman coded
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
MAX_SEGMENTS = 4_096  # an honest header has some dozens; 64 KB each
MAX_SCANS = 100  # encoders make about ten; each costs a pass over the whole picture
MAX_METADATA = 1 << 20  # bytes beside the picture above which a JPEG is not kept as it came


def outline(data: bytes) -> Outline:
    """Return the outline of a JPEG (of the first picture where several follow one another). Raises ImageFault."""
    kept = [data[:2]]
    frame: tuple[int, bytes] | None = None
    turned, several = 1, False
    at = 2
    for _ in range(MAX_SEGMENTS):
        marker, body, end = _segment(data, at)
        if marker == SOS:
            return _whole(data, at, kept, (frame, turned, several))
        if marker in FRAMES:
            if frame:
                raise ImageFault("corrupt", "JPEG with two frame headers")
            frame = marker, body
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and turned == 1:
            turned = orientation(body)
        several = several or (marker == 0xE2 and body.startswith(b"MPF\0"))
        if _is_needed(marker, body):
            kept.append(data[at:end] if data[at] == 0xFF else b"\xff" + data[at:end])
        at = end
    raise ImageFault("corrupt", f"JPEG with more than {MAX_SEGMENTS} segments before its first scan")


def _segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return (marker, body, end) of the segment at or after `at`."""
    at = data.find(b"\xff", at)
    while 0 <= at < len(data) - 1 and data[at + 1] in (0xFF, 0x00):
        at = data.find(b"\xff", at + 1)
    if at < 0 or at + 1 >= len(data):
        raise cut("JPEG", "header")
    marker = data[at + 1]
    if marker == EOI:
        raise ImageFault("corrupt", "JPEG without a picture")
    if marker in ALONE:
        return marker, b"", at + 2
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if at + 2 + length > len(data) or at + 4 > len(data):
        raise cut("JPEG", "header")
    if length < 2:
        raise ImageFault("corrupt", f"JPEG segment {marker:02X} of length {length}")
    return marker, data[at + 4 : at + 2 + length], at + 2 + length


def _is_needed(marker: int, body: bytes) -> bool:
    """Say whether a decoder needs a segment: tables, frame, JFIF, Adobe's colour mark and the colour profile."""
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0")
    return marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE or marker in ALONE)


def _whole(data: bytes, scan: int, kept: list[bytes], found: tuple[tuple[int, bytes] | None, int, bool]) -> Outline:
    frame, turned, several = found
    if frame is None or len(frame[1]) < 6:
        raise ImageFault("corrupt", "JPEG scan without a frame header")
    marker, body = frame
    bits, height, width, components = (
        body[0],
        int.from_bytes(body[1:3], "big"),
        int.from_bytes(body[3:5], "big"),
        body[5],
    )
    if not width or not height or bits != 8:
        raise ImageFault("corrupt", f"JPEG of {width} x {height} pixels, {bits} bits")
    if marker in PROGRESSIVE and data.count(b"\xff\xda", scan) > MAX_SCANS:
        raise ImageFault("corrupt", f"progressive JPEG of more than {MAX_SCANS} scans")
    complete = data.rfind(b"\xff\xd9", scan) >= 0
    pixels = b"".join([*kept, data[scan:]])
    plain = (
        marker in USUAL
        and components == 3
        and not several
        and data.endswith(b"\xff\xd9")
        and len(data) - len(pixels) <= MAX_METADATA
    )
    return Outline("JPEG", width, height, pixels, complete=complete, orientation=turned, plain=plain)
