"""A JPEG's segments, built by hand: what is read of them, what a decoder gets to see, and where they are wrong."""

import struct
from collections.abc import Sequence

import pytest

from filters.images.header import ImageFault
from filters.images.jpeg import (
    MAX_METADATA,
    MAX_SCANS,
    MAX_SEGMENTS,
    XMP,
    described,
    icc_segments,
    missing,
    outline,
    with_metadata,
)
from tests.support.picture_files import corners, encode, reason, tiff

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(
    marker: int = 0xC0, size: tuple[int, int] = (48, 32), bits: int = 8, components: int = 3, names: Sequence[int] = ()
) -> bytes:
    listed = b"".join(bytes([name, 0x11, 0]) for name in names or (0,) * components)
    return segment(marker, struct.pack(">BHHB", bits, size[1], size[0], components) + listed)


TABLES = segment(0xDB, bytes(65)) + segment(0xDD, b"\0\x0c")  # a restart after 12 of 24 units
SCAN = segment(0xDA, b"\x03\1\0\2\0\3\0\0?\0") + b"entropy coded \xff\0 with \xff\xd0 a restart"
PLAIN = SOI + TABLES + frame() + SCAN + EOI


def exif(turn: int) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff([(274, 3, 1, turn)]))


def fault(data: bytes) -> str:
    with pytest.raises(ImageFault) as caught:
        outline(data)
    return str(caught.value)


def test_a_plain_jpeg() -> None:
    found = outline(PLAIN)
    assert (found.format, found.width, found.height, found.frames, found.orientation) == ("JPEG", 48, 32, 1, 1)
    assert (found.complete, found.plain, found.pixels) == (True, True, PLAIN)
    assert outline(encode(corners(), "JPEG", progressive=True)).plain


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
ADOBE = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")


def test_metadata_is_left_out_of_what_a_decoder_sees() -> None:
    dropped = [segment(0xFE, b"a comment"), exif(1), segment(0xE2, b"FPXR\0"), segment(0xED, b"Photoshop"), b"\xff\x01"]
    icc = segment(0xE2, b"ICC_PROFILE\0\1\1a profile")
    found = outline(SOI + JFIF + b"".join(dropped) + ADOBE + icc + PLAIN[2:])
    assert found.pixels == SOI + JFIF + ADOBE + PLAIN[2:]
    assert (found.plain, found.profile) == (True, b"a profile")
    assert found.metadata == tuple(dropped[:4])


def test_what_hangs_on_to_the_marks_of_colour_is_cut_off() -> None:
    """JFIF may hold a small picture of 3 bytes a pixel, JFXX another; nothing may follow Adobe's 12 bytes."""
    thumbnail = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"secret" * 2) + segment(0xE0, b"JFXX\0\x10secret")
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\1secret")
    found = outline(SOI + thumbnail + adobe + PLAIN[2:])
    assert found.pixels == SOI + JFIF + ADOBE + PLAIN[2:]
    assert found.metadata == ()


@pytest.mark.parametrize("marker", [0xC8, 0xDC, 0xDE, 0xDF, 0xF0, 0xF7, 0xFD, 0x02, 0xBF])
def test_segments_that_no_decoder_needs_are_left_out(marker: int) -> None:
    """Reserved ones, those of extensions, and the number of lines, which the frame says already: 64 KB each."""
    found = outline(SOI + segment(marker, b"secret") + PLAIN[2:])
    assert (found.pixels, found.metadata) == (PLAIN, ())


def test_the_picture_ends_with_its_end_mark() -> None:
    """A second picture (MPF, MPO), a film, an archive: what follows is none of it."""
    second = SOI + segment(0xE2, b"MPF\0II") + PLAIN[2:]
    for behind in (b"x" * 100, PLAIN, b"PK\3\4" + EOI, EOI * 3):
        found = outline(second + behind)
        assert (found.pixels, found.complete, found.plain, found.metadata) == (PLAIN, True, True, ())


def test_scans_behind_a_sequential_picture_s_last_component_are_none_of_it() -> None:
    """Decoders pass over them, with the tables before them; a comment there is metadata as anywhere."""
    hidden = segment(0xDB, b"hidden") + SCAN + segment(0xFE, b"a comment") + SCAN
    whole = SOI + TABLES + frame(names=(1, 2, 3)) + SCAN
    found = outline(whole + hidden + EOI)
    assert (found.pixels, found.metadata) == (whole + EOI, (segment(0xFE, b"a comment"),))


def test_segments_between_scans_are_sorted_as_those_before() -> None:
    one = [segment(0xDA, bytes([1, name, 0, 0, 63, 0])) + b"data" for name in (1, 2, 3)]
    between = one[0] + segment(0xFE, b"a comment") + segment(0xDB, b"tables") + one[1] + segment(0xE5, b"x") + one[2]
    start = SOI + TABLES + frame(names=(1, 2, 3))
    found = outline(start + between + EOI)
    assert found.pixels == start + one[0] + segment(0xDB, b"tables") + one[1] + one[2] + EOI
    assert (found.metadata, found.missing) == ((segment(0xFE, b"a comment"), segment(0xE5, b"x")), "")


def scan(names: str, first: int, last: int, low: int) -> bytes:
    return bytes([len(names), *(byte for name in names for byte in (int(name), 0)), first, last, low])


def test_what_no_scan_has_brought() -> None:
    """libjpeg's own order of scans: of a file that breaks off behind any but the last, something is missing."""
    body = frame(names=(1, 2, 3))[4:]
    scans = [
        scan("123", 0, 0, 0x01), scan("1", 1, 5, 0x02), scan("3", 1, 63, 0x01), scan("2", 1, 63, 0x01),
        scan("1", 6, 63, 0x02), scan("1", 1, 63, 0x21), scan("123", 0, 0, 0x10), scan("3", 1, 63, 0x10),
        scan("2", 1, 63, 0x10), scan("1", 1, 63, 0x10),
    ]  # fmt: skip
    assert missing(True, body, scans) == ""
    assert all(missing(True, body, scans[:count]) for count in range(len(scans)))
    assert missing(True, body, scans[:9]) == "component 1: scans bring 1 of 64 coefficients in full"
    assert missing(True, body, [scan("123", 0, 0, 0), scan("1", 1, 63, 0), scan("2", 1, 63, 0)]) == (
        "component 3: scans bring 1 of 64 coefficients in full"
    )
    assert missing(False, body, [scan("12", 0, 63, 0)]) == "component 3: scans bring 0 of 64 coefficients in full"
    assert missing(False, body, [scan("12", 0, 0, 0), scan("3", 0, 0, 0)]) == ""  # its band means nothing


def test_metadata_comes_along_upright() -> None:
    """Stored pictures are turned already: what comes along must not ask for it again."""
    xmp = XMP + b'<x tiff:Orientation="6"/><tiff:Orientation> 8</tiff:Orientation>'
    upright = XMP + b'<x tiff:Orientation="1"/><tiff:Orientation> 1</tiff:Orientation>'
    found = outline(SOI + exif(6) + segment(0xE1, xmp) + PLAIN[2:])
    assert found.orientation == 6
    assert found.metadata == (exif(1), segment(0xE1, upright))
    assert outline(with_metadata(PLAIN, found.metadata)).orientation == 1


def test_metadata_stands_behind_the_mark_of_jfif() -> None:
    comment = segment(0xFE, b"x")
    assert with_metadata(SOI + JFIF + PLAIN[2:], (comment,)) == SOI + JFIF + comment + PLAIN[2:]
    assert with_metadata(PLAIN, (comment,)) == SOI + comment + PLAIN[2:]
    assert described((comment, segment(0xEB, b"JP a claim about these bytes"), exif(1))) == (comment, exif(1))


def test_a_profile_of_many_segments() -> None:
    profile = bytes(range(256)) * 600  # 153,600 bytes: three segments
    pieces = icc_segments(profile)
    assert [len(piece) - 18 for piece in pieces] == [65_519, 65_519, 22_562]
    shuffled = SOI + pieces[2] + pieces[0] + pieces[1] + PLAIN[2:]
    assert outline(shuffled).profile == profile
    assert outline(SOI + pieces[0] + pieces[1] + PLAIN[2:]).profile is None


def test_the_first_exif_block_that_turns_counts() -> None:
    assert [outline(SOI + exif(turn) + PLAIN[2:]).orientation for turn in (1, 3, 8, 9, 0)] == [1, 3, 8, 1, 1]
    assert outline(SOI + exif(1) + exif(6) + exif(3) + PLAIN[2:]).orientation == 6
    assert outline(SOI + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") + PLAIN[2:]).orientation == 1


@pytest.mark.parametrize(
    "data",
    [
        SOI + frame(components=1) + SCAN + EOI,
        SOI + frame(components=4) + SCAN + EOI,
        SOI + frame(0xC9) + SCAN + EOI,  # arithmetic coding
    ],
)
def test_what_readers_of_jpg_files_do_not_expect_is_not_plain(data: bytes) -> None:
    found = outline(data)
    assert (found.width, found.height, found.plain) == (48, 32, False)


def test_a_mib_of_metadata_comes_along_and_of_a_byte_more_nothing() -> None:
    """A comment segment has 4 bytes besides its text: 16 with 65,532 are 1 MiB."""
    comments = segment(0xFE, bytes(65_532)) * 15
    last = [segment(0xFE, bytes(65_532 + more)) for more in (0, 1)]
    found = [outline(SOI + comments + comment + PLAIN[2:]) for comment in last]
    assert [len(comments + comment) - MAX_METADATA for comment in last] == [0, 1]
    assert [len(one.metadata) for one in found] == [16, 0]
    assert [one.pixels for one in found] == [PLAIN, PLAIN]


def test_without_its_end_mark_it_is_not_complete() -> None:
    assert [outline(PLAIN[:-n]).complete for n in (1, 2, 10)] == [False] * 3
    data = encode(corners(), "JPEG")
    assert [reason(data[:-n]) for n in (1, 2, 10)] == ["truncated"] * 3


def test_cut_before_its_scan_it_is_truncated() -> None:
    whole = SOI + segment(0xE0, b"JFIF\0") + TABLES + frame() + SCAN
    for size in range(2, len(whole) - len(SCAN) + 12):
        assert fault(whole[:size]) == "truncated: JPEG ends within its header"
    assert not outline(whole).complete


def test_fill_bytes_before_a_marker_are_passed_over() -> None:
    found = outline(SOI + b"\xff\xff" + frame(0xC2) + SCAN + EOI)
    assert (found.width, found.height, found.complete) == (48, 32, True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (SOI + EOI, "without a picture"),
        (SOI + TABLES + SCAN + EOI, "scan without a frame header"),
        (SOI + segment(0xC0, b"\x08\0\x20") + SCAN + EOI, "scan without a frame header"),  # one of 3 bytes
        (SOI + frame() + frame() + SCAN + EOI, "two frame headers"),
        (SOI + frame(bits=12) + SCAN + EOI, "of 48 x 32 pixels, 12 bits"),
        (SOI + frame(size=(0, 32)) + SCAN + EOI, "of 0 x 32 pixels"),
        (SOI + frame(size=(48, 0)) + SCAN + EOI, "of 48 x 0 pixels"),
        (SOI + b"\xff\xdb\0\1" + frame() + SCAN + EOI, "segment DB of length 1"),
        (SOI + b"\xff\x01" * MAX_SEGMENTS + frame() + SCAN + EOI, "more than 4096 segments"),
    ],
)
def test_corrupt_headers(data: bytes, says: str) -> None:
    assert fault(data).startswith("corrupt: JPEG")
    assert says in fault(data)


def test_scans_are_counted_where_each_costs_a_pass_over_the_picture() -> None:
    scans = SCAN * MAX_SCANS
    assert outline(SOI + frame(0xC2) + scans + EOI).complete
    assert "more than 100 scans" in fault(SOI + frame(0xC2) + scans + SCAN + EOI)
    assert outline(SOI + frame(0xC0) + scans + SCAN + EOI).complete  # sequential: a decoder stops after its components


def test_damaged_files_end_in_a_reason() -> None:
    jpeg = encode(corners(), "JPEG")
    start = jpeg.index(b"\xff\xc0")
    assert reason(jpeg[:start] + jpeg[start : start + 19] + jpeg[start:]) == "corrupt"  # two frame headers
    assert reason(jpeg[: start + 4] + b"\x0c" + jpeg[start + 5 :]) == "corrupt"  # 12 bits
    scans = encode(corners(), "JPEG", progressive=True)
    assert reason(scans[:-2] + b"\xff\xda\0\0" * 200 + EOI) == "corrupt"
    assert reason(SOI + b"\xff\xfe\0\2" * 5000 + jpeg[2:]) == "corrupt"
    assert reason(b"\xff\xd8\xff\xd9") == "corrupt"
