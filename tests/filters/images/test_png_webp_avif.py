"""PNG, WebP and AVIF, built chunk by chunk: size, frames, what a decoder gets to see, and where they are wrong."""

import struct
import zlib

import pytest
from PIL import Image

from filters.images.header import ImageFault
from filters.images.png_webp_avif import MAX_CHUNKS, avif, is_avif, webp
from filters.images.png_webp_avif import png as outline
from tests.support.picture_files import BLUE, LIMITS, corners, encode, png, reason, tiff

EXIF = tiff([(274, 3, 1, 6)])


def fault(walk, data: bytes) -> str:
    with pytest.raises(ImageFault) as caught:
        walk(data)
    return str(caught.value)


def names(data: bytes) -> list[bytes]:
    """Return the names of a PNG's chunks, after checking that each has its checksum."""
    at, found = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        found.append(body[:4])
        at += 12 + length
    return found


def test_a_png_without_its_metadata() -> None:
    extra = [(b"tEXt", b"Comment\0x"), (b"eXIf", EXIF), (b"pHYs", bytes(9)), (b"iCCP", b"p\0\0x"), (b"tRNS", b"\0\1")]
    found = outline(png(3, 2, (8, 0), bytes(8), *extra) + b"behind the end")
    assert (found.format, found.width, found.height, found.frames, found.complete) == ("PNG", 3, 2, 1, True)
    assert found.orientation == 6
    assert names(found.pixels) == [b"IHDR", b"tRNS", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    ("header", "colour", "expected"),
    [
        ((2, 0), [1], [85]),  # of 0..3: 1/3 of 255
        ((4, 0), [5], [85]),  # of 0..15
        ((8, 0), [77], [77]),
        ((16, 0), [0x1234], [0x1234]),  # Pillow gives 16-bit grey in 16 bits
        ((16, 2), [0x1234, 0x5678, 0x9ABC], [0x12, 0x56, 0x9A]),  # and RGB in its high bytes
        ((8, 3), [0x0180], [0x0180]),  # a palette's: a byte for each of its colours
    ],
)
def test_the_see_through_colour_has_the_depth_of_the_decoded_pixels(header, colour, expected) -> None:
    chunk = struct.pack(f">{len(colour)}H", *colour)
    pixels = outline(png(1, 1, header, bytes(7), (b"tRNS", chunk))).pixels
    at = pixels.index(b"tRNS") + 4
    assert pixels[at : at + len(chunk)] == struct.pack(f">{len(expected)}H", *expected)


def test_an_animation_is_one_that_says_so_before_its_picture() -> None:
    """acTL: frames, repetitions. Behind IDAT it means nothing (APNG specification)."""
    several, one = (b"acTL", struct.pack(">II", 3, 0)), (b"acTL", struct.pack(">II", 1, 0))
    assert [outline(png(1, 1, (8, 0), b"\0\7", chunk)).frames for chunk in (several, one)] == [2, 1]
    late = png(1, 1, (8, 0), b"\0\7", several, (b"IDAT", b""))
    swapped = png(1, 1, (8, 0), b"\0\7", (b"IDAT", b""), several)
    assert [outline(data).frames for data in (late, swapped)] == [2, 1]


def test_a_cut_png() -> None:
    whole = png(3, 2, (8, 0), bytes(8))
    assert {fault(outline, whole[:size]) for size in range(8, 33)} == {"truncated: PNG ends within its header"}
    assert [outline(whole[:size]).complete for size in (33, 40, len(whole) - 13)] == [False] * 3


def test_corrupt_pngs() -> None:
    whole = png(3, 2, (8, 0), bytes(8))
    assert fault(outline, whole[:12] + b"IDAT" + whole[16:]) == "corrupt: PNG without IHDR"
    assert fault(outline, png(0, 5, (8, 0), b"")) == "corrupt: PNG of 0 x 5 pixels"
    assert fault(outline, png(1, 1, (8, 0), b"", (b"a b ", b""))) == "corrupt: PNG chunk named b'a b '"
    many = whole[:33] + (bytes(4) + b"teXt" + bytes(4)) * MAX_CHUNKS
    assert fault(outline, many) == "corrupt: PNG of more than 100000 chunks"
    good = encode(corners(), "PNG")
    at = good.index(b"IDAT") + 6
    assert reason(good[:at] + bytes([good[at] ^ 0xFF, good[at + 1] ^ 0xFF]) + good[at + 2 :]) == "corrupt"
    assert reason(png(1, 1, (7, 9), b"\0\7")) == "corrupt"  # depth 7, colour 9


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def lossy(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)


def lossless(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8L", b"\x2f" + (width - 1 | height - 1 << 14).to_bytes(4, "little") + bytes(5)


def test_sizes_of_a_webp() -> None:
    assert [(one.width, one.height) for one in map(webp, map(riff, (canvas(70_000, 3), lossy(48, 32))))] == [
        (70_000, 3),
        (48, 32),
    ]
    found = webp(riff(lossless(16_384, 7)))
    assert (found.format, found.width, found.height, found.frames, found.complete) == ("WEBP", 16_384, 7, 1, True)
    scaled = webp(riff(lossy(0x4000 | 48, 0xC000 | 32)))
    assert (scaled.width, scaled.height) == (48, 32)  # the two high bits are a scale (RFC 6386, 9.1)
    largest = webp(riff(canvas(10, 40), lossy(30, 20)))
    assert (largest.width, largest.height) == (30, 40)  # whichever a decoder believes


def test_frames_and_orientation_of_a_webp() -> None:
    found = webp(riff(canvas(4, 4), (b"ANMF", b"xyz"), (b"ANMF", b""), (b"ANMF", b""), (b"EXIF", EXIF)))
    assert (found.frames, found.orientation) == (2, 6)  # an odd length is followed by a byte of nothing
    assert webp(riff(canvas(4, 4), (b"ANMF", b""))).frames == 1


def test_cut_and_corrupt_webps() -> None:
    whole = riff(canvas(4, 4), lossy(4, 4))
    assert fault(webp, whole[:12]) == fault(webp, whole[:29]) == "truncated: WebP ends within its header"
    assert fault(webp, riff((b"XMP ", b"x" * 20))) == "truncated: WebP ends within its header"
    assert not webp(riff(canvas(4, 4), (b"VP8 ", lossy(4, 4)[1] + b"data"))[:-1]).complete
    assert fault(webp, riff(lossy(0, 4))) == "corrupt: WebP without pixels"
    assert fault(webp, riff(*[(b"XMP ", b"")] * (MAX_CHUNKS + 1))) == "corrupt: WebP of more than 100000 chunks"


def box(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", len(body) + 8 if length is None else length) + kind + body


def ispe(width: int, height: int) -> bytes:
    return box(b"ispe", bytes(4) + struct.pack(">II", width, height))


FTYP = box(b"ftyp", b"mif1\0\0\0\0avif")


def test_an_avif_calls_itself_one() -> None:
    assert is_avif(FTYP)
    assert is_avif(box(b"ftyp", b"avis\0\0\0\0"))
    assert not is_avif(box(b"ftyp", b"heic\0\0\0\0mif1") + b"avif")  # behind the box
    assert not is_avif(b"RIFF....AVI avif")


def test_the_largest_size_of_any_item_counts() -> None:
    """A decoder may take any of them; sizes inside the picture's own data are none."""
    data = FTYP + box(b"meta", ispe(48, 32) + ispe(640, 480)) + box(b"mdat", ispe(9_999, 9_999))
    found = avif(data)
    assert (found.format, found.width, found.height, found.complete) == ("AVIF", 640, 480, True)
    assert found.pixels == data


def test_exif_items_are_renamed_outside_the_picture_s_data() -> None:
    data = FTYP + box(b"meta", b"infe Exif" + ispe(4, 4)) + box(b"mdat", b"Exif as it happens")
    assert avif(data).pixels == data.replace(b"infe Exif", b"infe skip")


def test_boxes_of_every_length() -> None:
    """1 in place of a length: it follows in 8 bytes; 0: up to the file's end."""
    meta = box(b"meta", struct.pack(">Q", 16 + 20) + ispe(4, 4), length=1)
    found = avif(FTYP + meta + box(b"mdat", b"pixels", length=0))
    assert (found.width, found.height, found.complete) == (4, 4, True)
    for length in (2, 7):
        assert fault(avif, FTYP + box(b"free", b"", length)) == f"corrupt: AVIF box of length {length}"
    short = box(b"meta", struct.pack(">Q", 15), length=1)
    assert fault(avif, FTYP + short) == "corrupt: AVIF box of length 1"


def test_cut_and_empty_avifs() -> None:
    whole = FTYP + box(b"meta", ispe(4, 4)) + box(b"mdat", b"pixels")
    assert not avif(whole[:-1]).complete
    assert not avif(FTYP + box(b"meta", ispe(4, 4))).complete  # its pixels are missing
    assert fault(avif, FTYP) == "truncated: AVIF ends within its header"
    assert fault(avif, FTYP + box(b"meta", b"")) == "corrupt: AVIF without a size"
    assert fault(avif, FTYP + box(b"meta", ispe(0, 4))) == "corrupt: AVIF without a size"


def test_real_files_have_the_sizes_of_their_pictures() -> None:
    picture = Image.new("RGB", (37, 21), BLUE)
    for walk, format_ in ((outline, "PNG"), (webp, "WEBP"), (avif, "AVIF")):
        found = walk(encode(picture, format_))
        assert (found.format, found.width, found.height, found.complete) == (format_, 37, 21, True)
        assert reason(encode(picture, format_), LIMITS) is None
