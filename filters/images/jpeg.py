"""Walk a JPEG's segments and scans up to its end mark: size, coding, orientation, profile; set metadata apart."""

import re
import struct
from dataclasses import dataclass, field

from filters.images.header import ImageFault, Outline, cut
from filters.images.jpeg_tables import HUFFMAN, QUANTISATION, RESTARTS, USUAL, Tables, TableSegment, scan_data
from filters.images.tiff import orientation, upright_exif

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, EXIF_XMP, ICC_MPF, IPTC, ADOBE, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
ALONE = {0x01, SOI, *range(0xD0, 0xD8)}  # markers without a length (ITU T.81, B.1.1.3)
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; C4, C8 and CC are tables and an extension
TABLES = {HUFFMAN, QUANTISATION, RESTARTS}
ARITHMETIC = 0xCC
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
MAX_SEGMENTS = 4_096  # an honest header has some dozens; 64 KB each
MAX_SCANS = 100  # encoders make about ten; each costs a pass over the whole picture
MAX_METADATA = 1 << 20  # bytes of metadata above which none is carried along, where the recipe keeps it
XMP = b"http://ns.adobe.com/xap/1.0/\0"
MAX_BODY = 65_533  # bytes of a segment
XMP_TURN = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")
JFIF_BYTES, ADOBE_BYTES = 14, 12  # without JFIF's thumbnail, and what may stand behind either


@dataclass
class _Walk:
    """What was found on the way. `kept`: what a decoder needs, in order; `scans`: bodies of the scans' headers;
    `is_done`: a sequential picture's last component has come, and nothing more belongs to it."""

    kept: list[bytes | TableSegment]
    frame: tuple[int, bytes] | None = None
    turned: int = 1
    profile: list[bytes] = field(default_factory=list)
    metadata: list[bytes] = field(default_factory=list)
    metadata_bytes: int = 0
    scans: list[bytes] = field(default_factory=list)
    is_done: bool = False
    tables: Tables = field(default_factory=Tables)

    def take(self, marker: int, body: bytes) -> None:
        """Sort a segment: needed to decode, profile, or metadata. Raises ImageFault for a second frame."""
        if marker in FRAMES:
            if self.frame:
                raise ImageFault("corrupt", "JPEG with two frame headers")
            self.frame = marker, body
        if marker == ICC_MPF and body.startswith(b"ICC_PROFILE\0"):
            self.profile.append(body)
        elif short := _colour_mark(marker, body):
            self.kept.append(short)
        elif marker in range(APP0, APP0 + 16) or marker == COMMENT:
            self._note(marker, body)
        elif marker in TABLES and not self.is_done:
            self.kept.append(self.tables.take(marker, body))
        elif (marker in FRAMES or marker == ARITHMETIC) and not self.is_done:
            self.kept.append(segment(marker, body))

    def packed(self) -> bytes:
        """Return what a decoder needs, less the tables that no scan has used."""
        return b"".join(part.packed() if isinstance(part, TableSegment) else part for part in self.kept)

    def _note(self, marker: int, body: bytes) -> None:
        if marker == EXIF_XMP and body.startswith(b"Exif\0\0") and self.turned == 1:
            self.turned = orientation(body)
        if body.startswith((b"MPF\0", b"JFXX\0", b"JFIF\0")):  # point behind the picture, or are small pictures
            return
        self.metadata_bytes += 4 + len(body)
        if self.metadata_bytes <= MAX_METADATA:
            self.metadata.append(upright_segment(segment(marker, body)))


def outline(data: bytes) -> Outline:
    """Return the outline of a JPEG (of the first picture where several follow one another). Raises ImageFault."""
    walk, at = _Walk([data[:2]]), 2
    for _ in range(MAX_SEGMENTS):
        marker, body, end = next_segment(data, at)
        if marker == EOI:
            raise ImageFault("corrupt", "JPEG without a picture")
        if marker == SOS:
            return _whole(data, at, walk)
        walk.take(marker, body)
        at = end
    raise ImageFault("corrupt", f"JPEG with more than {MAX_SEGMENTS} segments before its first scan")


def segment(marker: int, body: bytes) -> bytes:
    """Return a segment of at most 65,533 bytes of body."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_metadata(jpeg: bytes, metadata: "tuple[bytes, ...]") -> bytes:
    """Return a JPEG with segments put behind its JFIF mark, or behind its start where it has none."""
    marker, _, end = next_segment(jpeg, 2)
    at = end if marker == APP0 else 2
    return b"".join([jpeg[:at], *metadata, jpeg[at:]])


def described(segments: "tuple[bytes, ...]") -> "tuple[bytes, ...]":
    """Return those segments that stay true of a picture that was encoded again: EXIF, XMP, IPTC and comments."""
    return tuple(one for one in segments if one[1] in (EXIF_XMP, IPTC, COMMENT))


def upright_segment(one: bytes) -> bytes:
    """Return a segment of EXIF or XMP that asks for no turning: stored pictures stand upright."""
    body = one[4:]
    if one[1] != EXIF_XMP:
        return one
    return one[:4] + (upright_exif(body) if body.startswith(b"Exif\0\0") else XMP_TURN.sub(rb"\g<1>1", body))


def exif_segment(block: bytes) -> list[bytes]:
    """Return another format's EXIF block as a JPEG's segment, upright; none where it is too large for one."""
    body = b"Exif\0\0" + block.removeprefix(b"Exif\0\0")
    return [upright_segment(segment(EXIF_XMP, body))] if len(body) <= MAX_BODY else []


def xmp_segment(packet: bytes) -> list[bytes]:
    """Return another format's XMP as a JPEG's segment, upright; none where it is too large for one."""
    return [upright_segment(segment(EXIF_XMP, XMP + packet))] if len(XMP + packet) <= MAX_BODY else []


def icc_segments(profile: bytes) -> "tuple[bytes, ...]":
    """Return a colour profile as the segments that hold it (ICC.1:2022, B.4)."""
    pieces = [profile[at : at + 65_519] for at in range(0, len(profile), 65_519)]
    return tuple(
        segment(ICC_MPF, b"ICC_PROFILE\0" + bytes([number, len(pieces)]) + piece)
        for number, piece in enumerate(pieces, 1)
    )


def next_segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return (marker, body, end) of the segment at or after `at`. Raises ImageFault where there is none."""
    at = data.find(b"\xff", at)
    while 0 <= at < len(data) - 1 and data[at + 1] in (0xFF, 0x00):
        at = data.find(b"\xff", at + 1)
    if at < 0 or at + 1 >= len(data):
        raise cut("JPEG", "header")
    marker = data[at + 1]
    if marker in ALONE or marker == EOI:
        return marker, b"", at + 2
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if at + 2 + length > len(data) or at + 4 > len(data):
        raise cut("JPEG", "header")
    if length < 2:
        raise ImageFault("corrupt", f"JPEG segment {marker:02X} of length {length}")
    return marker, data[at + 4 : at + 2 + length], at + 2 + length


def _colour_mark(marker: int, body: bytes) -> bytes:
    """Return JFIF's or Adobe's mark, which say what the components are, without what may hang on to them."""
    if marker == APP0 and body.startswith(b"JFIF\0") and len(body) >= JFIF_BYTES:
        return segment(marker, body[: JFIF_BYTES - 2] + bytes(2))
    if marker == ADOBE and body.startswith(b"Adobe") and len(body) >= ADOBE_BYTES:
        return segment(marker, body[:ADOBE_BYTES])
    return b""


def _whole(data: bytes, at: int, walk: _Walk) -> Outline:
    """Judge the frame, then walk the scans from the first one, at `at`, to the end mark."""
    if walk.frame is None or len(walk.frame[1]) < 6:
        raise ImageFault("corrupt", "JPEG scan without a frame header")
    marker, body = walk.frame
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    if not width or not height or bits != 8:
        raise ImageFault("corrupt", f"JPEG of {width} x {height} pixels, {bits} bits")
    complete = _scans(data, at, walk, walk.frame)
    return Outline(
        "JPEG",
        width,
        height,
        walk.packed(),
        complete=complete,
        orientation=walk.turned,
        plain=marker in USUAL and components == 3,
        profile=_profile(walk.profile),
        metadata=tuple(walk.metadata) if walk.metadata_bytes <= MAX_METADATA else (),
        missing=missing(marker in PROGRESSIVE, body, walk.scans) if complete else "ends before its end mark",
    )


def _scans(data: bytes, at: int, walk: _Walk, frame: tuple[int, bytes]) -> bool:
    """Take each scan with its data, and the tables between scans. Return whether the end mark was reached."""
    progressive = frame[0] in PROGRESSIVE
    for _ in range(MAX_SEGMENTS):
        try:
            marker, body, end = next_segment(data, at)
        except ImageFault as fault:
            if fault.reason != "truncated":
                raise
            walk.kept.append(data[at:])
            return False
        if marker == EOI:
            walk.kept.append(b"\xff\xd9")
            return True
        if marker == SOS:
            restarts = None if walk.is_done else walk.tables.restarts(frame, body)
            coded, end = scan_data(data, end, restarts)
            if not walk.is_done:
                walk.tables.use(frame, body)
                walk.kept += [segment(SOS, body), coded]
                walk.scans.append(body)
            if progressive and len(walk.scans) > MAX_SCANS:
                raise ImageFault("corrupt", f"progressive JPEG of more than {MAX_SCANS} scans")
            walk.is_done = not progressive and not missing(False, frame[1], walk.scans)
        else:
            walk.take(marker, body)
        at = end
    raise ImageFault("corrupt", f"JPEG with more than {MAX_SEGMENTS} segments between its scans")


def missing(progressive: bool, frame: bytes, scans: list[bytes]) -> str:
    """Say what no scan has brought: a component, or bits of its coefficients; "" where all came.

    ITU T.81 lets a progressive JPEG end before its last bits; encoders never do, downloads that broke off do.
    """
    names = [frame[at] for at in range(6, 6 + 3 * frame[5], 3) if at < len(frame)]
    low_bits = {name: [-1] * 64 for name in names}  # per coefficient; -1: nothing came
    for scan in scans:
        count = scan[0] if scan else 0
        if len(scan) < 4 + 2 * count:
            continue
        first, last, low = (scan[1 + 2 * count], scan[2 + 2 * count], scan[3 + 2 * count] & 15)
        band = range(first, min(last, 63) + 1) if progressive else range(64)
        for name in scan[1 : 1 + 2 * count : 2]:
            for place in band if name in low_bits else ():
                low_bits[name][place] = low if progressive else 0
    for name, bits in low_bits.items():
        if any(bits):
            return f"component {name}: scans bring {sum(bit == 0 for bit in bits)} of 64 coefficients in full"
    return ""


def _profile(pieces: list[bytes]) -> bytes | None:
    """Return the colour profile of its segments, None where some are missing."""
    if not pieces or min(map(len, pieces)) < 14 or min(pieces)[13] != len(pieces):
        return None
    return b"".join(piece[14:] for piece in sorted(pieces))
