"""A JPEG's segments, built by hand: what is read of them, what a decoder gets to see, and where they are wrong."""

import struct

import pytest

from filters.images.header import ImageFault
from filters.images.jpeg import MAX_METADATA, MAX_SCANS, MAX_SEGMENTS, outline
from tests.support.picture_files import corners, encode, reason, tiff

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(marker: int = 0xC0, size: tuple[int, int] = (48, 32), bits: int = 8, components: int = 3) -> bytes:
    return segment(marker, struct.pack(">BHHB", bits, size[1], size[0], components) + bytes(3 * components))


TABLES = segment(0xDB, bytes(65))
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


def test_metadata_is_left_out_of_what_a_decoder_sees() -> None:
    kept = [segment(0xE0, b"JFIF\0"), segment(0xEE, b"Adobe"), segment(0xE2, b"ICC_PROFILE\0\1\1")]
    dropped = [segment(0xFE, b"a comment"), exif(1), segment(0xE2, b"FPXR\0"), segment(0xED, b"Photoshop"), b"\xff\x01"]
    whole = SOI + b"".join(a + b for a, b in zip(kept + [b""] * 2, dropped, strict=True)) + PLAIN[2:]
    assert outline(whole).pixels == SOI + b"".join(kept) + PLAIN[2:]
    assert outline(whole).plain  # little metadata: the file may be kept as it came


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
        SOI + segment(0xE2, b"MPF\0II") + PLAIN[2:],  # a second picture follows
        PLAIN + b"behind the end",
        PLAIN[:-2],
    ],
)
def test_what_readers_of_jpg_files_do_not_expect_is_not_plain(data: bytes) -> None:
    found = outline(data)
    assert (found.width, found.height, found.plain) == (48, 32, False)


def test_metadata_of_a_mib_may_stay_and_a_byte_more_may_not() -> None:
    """A comment segment has 4 bytes besides its text: 16 with 65,532 are 1 MiB."""
    comments = segment(0xFE, bytes(65_532)) * 15
    last = [segment(0xFE, bytes(65_532 + more)) for more in (0, 1)]
    found = [outline(SOI + comments + comment + PLAIN[2:]) for comment in last]
    assert [len(comments + comment) - MAX_METADATA for comment in last] == [0, 1]
    assert [one.plain for one in found] == [True, False]


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
