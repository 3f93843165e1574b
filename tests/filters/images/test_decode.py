"""filters/fetch: images.py and pixels.py: pixel values of every kind of picture, and what is stored of it."""

import hashlib
import io
import struct
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from filters.images.decode import ImageFault, ImageLimits, inspect, open_picture, store
from tests.support.picture_files import (
    BLUE,
    FORMATS,
    GREEN,
    LIMITS,
    RED,
    WHITE,
    corners,
    encode,
    pixel,
    png,
    quarters,
    reason,
    swapped_profile,
)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("format_", "options"), FORMATS)
def test_every_format_is_read(format_: str, options: dict[str, Any]) -> None:
    data = encode(corners(), format_, **options)
    header = inspect(data, LIMITS)
    assert (header.format, header.width, header.height, header.frames) == (format_, 48, 32, 1)
    picture = open_picture(data, LIMITS)
    assert (picture.mode, picture.size) == ("RGB", (48, 32))
    assert quarters(picture) == [RED, GREEN, BLUE, WHITE]
    stored = store(data, LIMITS)
    assert (stored.width, stored.height, stored.original_width, stored.original_height) == (48, 32, 48, 32)
    assert quarters(Image.open(io.BytesIO(stored.jpeg))) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format_: str, orientation: int) -> None:
    """The quarters as they stand in the file, row 0 and column 0 where the Exif standard's table says."""
    as_seen = {
        1: [RED, GREEN, BLUE, WHITE],
        2: [GREEN, RED, WHITE, BLUE],
        3: [WHITE, BLUE, GREEN, RED],
        4: [BLUE, WHITE, RED, GREEN],
        5: [RED, BLUE, GREEN, WHITE],
        6: [BLUE, RED, WHITE, GREEN],
        7: [WHITE, GREEN, BLUE, RED],
        8: [GREEN, WHITE, RED, BLUE],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    data = encode(corners(), format_, exif=exif, **options)
    size = (48, 32) if orientation < 5 else (32, 48)
    header = inspect(data, LIMITS)
    assert (header.width, header.height) == size
    picture = open_picture(data, LIMITS)
    assert picture.size == size
    assert quarters(picture) == as_seen[orientation]
    stored = store(data, ImageLimits(store_side=16))
    again = Image.open(io.BytesIO(stored.jpeg))
    assert (stored.original_width, stored.original_height) == size
    assert again.size == (stored.width, stored.height) == (size[0] // 2, size[1] // 2)
    assert quarters(again) == as_seen[orientation]
    assert not again.getexif()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colour_profiles_are_applied(format_: str) -> None:
    data = encode(corners(), format_, icc_profile=swapped_profile())
    assert quarters(open_picture(data, LIMITS)) == [BLUE, RED, GREEN, WHITE]
    stored = store(data, LIMITS)
    again = Image.open(io.BytesIO(stored.jpeg))
    assert quarters(again) == [BLUE, RED, GREEN, WHITE]
    assert "icc_profile" not in again.info


def test_colour_profiles_reach_palettes_alpha_and_grey() -> None:
    swapped = swapped_profile()
    palette = corners().quantize(8)
    assert quarters(open_picture(encode(palette, "PNG", icc_profile=swapped), LIMITS)) == [BLUE, RED, GREEN, WHITE]
    clear = corners().convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 255))
    clear.paste((255, 0, 0, 0), (0, 0, 24, 16))
    assert quarters(open_picture(encode(clear, "PNG", icc_profile=swapped), LIMITS)) == [WHITE, RED, GREEN, WHITE]
    grey = Image.new("L", (8, 8), 77)
    assert pixel(open_picture(encode(grey, "PNG", icc_profile=swapped), LIMITS), 3, 3) == pytest.approx(
        (77, 77, 77), abs=1
    )


@pytest.mark.parametrize("profile", [b"", b"rubbish" * 100, b"\0" * (5 << 20)])
def test_broken_and_oversized_profiles_are_passed_over(profile: bytes) -> None:
    data = encode(corners(), "JPEG", quality=95, icc_profile=profile)
    assert quarters(open_picture(data, LIMITS)) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_without_a_profile() -> None:
    """R = 255 (1 - C)(1 - K): cyan 51, black 102 of 255 leave 255 * 0.8 * 0.6 = 122.4 of red, 255 * 0.6 = 153 of green
    and blue."""
    picture = Image.new("CMYK", (16, 16), (51, 0, 0, 102))
    for data in (encode(picture, "TIFF"), encode(picture, "JPEG", quality=100)):
        assert pixel(open_picture(data, LIMITS), 8, 8) == pytest.approx((122, 153, 153), abs=2)
    assert reason(encode(picture, "JPEG")) is None
    assert Image.open(io.BytesIO(store(encode(picture, "JPEG"), LIMITS).jpeg)).mode == "RGB"


def test_sixteen_bit_samples_give_their_high_bytes() -> None:
    grey = png(2, 1, (16, 0), b"\0" + struct.pack(">HH", 0x8040, 0xFFFF))
    assert [pixel(open_picture(grey, LIMITS), x, 0) for x in (0, 1)] == [(128, 128, 128), WHITE]
    colour = png(1, 1, (16, 2), b"\0" + struct.pack(">HHH", 0x8040, 0x20FF, 0xFF00))
    assert pixel(open_picture(colour, LIMITS), 0, 0) == (128, 32, 255)
    alpha = png(1, 1, (16, 4), b"\0" + struct.pack(">HH", 0x0000, 0x8000))
    assert pixel(open_picture(alpha, LIMITS), 0, 0) == (127, 127, 127)  # black, 128 of 255 opaque: 255 * (127 / 255)
    values = Image.fromarray(np.array([[0, 256, 65535]], dtype=np.uint16))
    assert [pixel(open_picture(encode(values, "TIFF"), LIMITS), x, 0)[0] for x in range(3)] == [0, 1, 255]


def test_small_depths() -> None:
    bits = png(8, 1, (1, 0), b"\0\x55")
    assert [pixel(open_picture(bits, LIMITS), x, 0)[0] for x in range(8)] == [0, 255] * 4
    two = png(4, 1, (2, 0), b"\0\x1b")  # 0, 1, 2, 3 of 3
    assert [pixel(open_picture(two, LIMITS), x, 0)[0] for x in range(4)] == [0, 85, 170, 255]


def test_see_through_colours() -> None:
    """tRNS names one colour, in the file's own depth; its pixels become white, others stay."""
    cases = [
        png(4, 1, (2, 0), b"\0\x1b", (b"tRNS", struct.pack(">H", 1))),
        png(4, 1, (8, 0), b"\0" + bytes([0, 85, 170, 255]), (b"tRNS", struct.pack(">H", 85))),
        png(4, 1, (16, 0), b"\0" + struct.pack(">4H", 0, 0x5501, 0xAAAA, 0xFFFF), (b"tRNS", struct.pack(">H", 0x5501))),
    ]
    for data in cases:
        assert [pixel(open_picture(data, LIMITS), x, 0)[0] for x in range(4)] == [0, 255, 170, 255]
    eight = png(2, 1, (8, 2), b"\0" + bytes([9, 8, 7, 1, 2, 3]), (b"tRNS", struct.pack(">3H", 9, 8, 7)))
    deep = png(
        2,
        1,
        (16, 2),
        b"\0" + struct.pack(">6H", *(value << 8 for value in (9, 8, 7, 1, 2, 3))),
        (b"tRNS", struct.pack(">3H", 9 << 8, 8 << 8, 7 << 8)),
    )
    for data in (eight, deep):
        assert [pixel(open_picture(data, LIMITS), x, 0) for x in (0, 1)] == [WHITE, (1, 2, 3)]


def test_palettes_with_transparency() -> None:
    palette = bytes([*RED, *GREEN, *BLUE])
    partly = png(3, 1, (8, 3), b"\0\0\1\2", (b"PLTE", palette), (b"tRNS", bytes([0, 128, 255])))
    assert [pixel(open_picture(partly, LIMITS), x, 0) for x in range(3)] == [WHITE, (127, 255, 127), BLUE]
    wholly = png(3, 1, (8, 3), b"\0\0\1\2", (b"PLTE", palette), (b"tRNS", b"\0"))
    assert [pixel(open_picture(wholly, LIMITS), x, 0) for x in range(3)] == [WHITE, GREEN, BLUE]
    gif = encode(corners().quantize(8), "GIF", transparency=corners().quantize(8).getpixel((0, 0)))
    assert quarters(open_picture(gif, LIMITS)) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 51)), ("LA", (0, 51))])
def test_alpha_lies_on_white(mode: str, colour: tuple[int, ...]) -> None:
    """Black, a fifth opaque: 255 * 0.8 = 204."""
    picture = Image.new(mode, (8, 8), colour)
    assert pixel(open_picture(encode(picture, "PNG"), LIMITS), 4, 4) == (204, 204, 204)
    if mode == "RGBA":
        assert pixel(open_picture(encode(picture, "WEBP", lossless=True, exact=True), LIMITS), 4, 4) == (204, 204, 204)


def test_samples_without_a_scale_are_no_picture() -> None:
    for mode in ("I", "F"):
        assert reason(encode(Image.new(mode, (8, 8), 5), "TIFF")) == "not_an_image"
    assert reason(encode(Image.new("LAB", (8, 8)), "TIFF")) == "not_an_image"


def test_files_that_fit_are_kept_byte_for_byte() -> None:
    plain = [
        encode(corners(), "JPEG", quality=70),
        encode(corners(), "JPEG", progressive=True),
        encode(corners(), "JPEG", comment=b"hello"),
    ]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 1
    for data in [*plain, encode(corners(), "JPEG", icc_profile=srgb), encode(corners(), "JPEG", exif=exif)]:
        stored = store(data, LIMITS)
        assert stored.jpeg == data
        assert (stored.width, stored.height, stored.original_width, stored.original_height) == (48, 32, 48, 32)
    assert store(plain[0], ImageLimits(store_side=None)).jpeg == plain[0]
    assert store(plain[0], ImageLimits(store_side=32)).jpeg == plain[0]


def test_files_that_do_not_fit_are_encoded_again() -> None:
    plain = encode(corners(), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 3
    others = [
        encode(corners(), "JPEG", exif=exif),
        encode(corners(), "JPEG", icc_profile=swapped_profile()),
        encode(corners().convert("L"), "JPEG"),
        encode(corners().convert("CMYK"), "JPEG"),
        encode(corners(), "JPEG") + b"something behind the end",
        plain[:2] + b"\xff\xfe\xff\xff\0\0".ljust(65_537, b"x") * 20 + plain[2:],  # 1.3 MB of comments
    ]
    for data in others:
        stored = store(data, LIMITS)
        again = Image.open(io.BytesIO(stored.jpeg))
        assert stored.jpeg != data
        assert (again.format, again.mode, again.size) == ("JPEG", "RGB", (48, 32))
        assert not {"exif", "icc_profile", "comment", "dpi"} & set(again.info)
        assert again.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # type: ignore[attr-defined]  # 4:4:4
    assert len(store(corners_png := encode(corners(), "PNG"), ImageLimits(jpeg_quality=20)).jpeg) < len(
        store(corners_png, LIMITS).jpeg
    )


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "stored"),
    [
        ((640, 480), (85, 64)),
        ((300, 1000), (64, 213)),
        ((65, 65), (64, 64)),
        ((64, 500), (64, 500)),
        ((10, 700), (10, 700)),
    ],
)
def test_the_short_side_is_brought_down_never_up(format_: str, size: tuple[int, int], stored: tuple[int, int]) -> None:
    found = store(encode(corners(*size), format_), LIMITS)
    again = Image.open(io.BytesIO(found.jpeg))
    assert again.size == (found.width, found.height) == stored
    assert (found.original_width, found.original_height) == size
    assert quarters(again) == [RED, GREEN, BLUE, WHITE]


def test_a_side_that_no_jpeg_has() -> None:
    with pytest.raises(ImageFault, match="too_many_pixels"):
        store(encode(Image.new("L", (70_000, 2)), "PNG"), LIMITS)


def test_the_same_bytes_come_out_every_time() -> None:
    y, x = np.mgrid[0:300, 0:400]
    picture = Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8))
    data = encode(picture, "PNG")
    first = store(data, LIMITS).jpeg
    assert store(data, LIMITS).jpeg == first
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "another")
    assert store(encode(picture, "PNG", pnginfo=info, dpi=(300, 300)), LIMITS).jpeg == first  # only pixels go in
    script = "import sys; from filters.images.decode import *; from sys import stdin, stdout; "
    script += "stdout.buffer.write(store(stdin.buffer.read(), ImageLimits(store_side=64)).jpeg)"
    other = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True, timeout=60
    ).stdout
    assert hashlib.sha256(other).hexdigest() == hashlib.sha256(first).hexdigest()


def test_a_jpeg_made_smaller_by_its_decoder_equals_the_long_way() -> None:
    """Large JPEGs are decoded at a half, a quarter or an eighth, never below 1.25 x the stored side."""
    y, x = np.mgrid[0:768, 0:1024] / 64.0
    picture = Image.fromarray(
        np.stack([127 + 120 * np.sin(x), 127 + 120 * np.cos(y), 127 + 120 * np.sin(x + y)], axis=-1).astype(np.uint8)
    )
    data = encode(picture, "JPEG", quality=95, subsampling=0)
    short = np.asarray(Image.open(io.BytesIO(store(data, LIMITS).jpeg))).astype(int)
    long_ = np.asarray(open_picture(data, LIMITS).resize((85, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(short - long_).mean() < 1.5
