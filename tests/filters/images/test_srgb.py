"""Pixels of every mode in upright 8-bit sRGB: depths, palettes, transparency, CMYK and colour profiles, by hand."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from filters.images.decode import ImageLimits, open_picture, store
from filters.images.header import ImageFault
from filters.images.srgb import MAX_PROFILE, is_srgb, to_srgb, upright
from tests.support.picture_files import (
    BLUE,
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

pytestmark = pytest.mark.filterwarnings("error")


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_upright_is_the_exif_standard_s_table() -> None:
    """A picture of 3 x 2 pixels, numbered in reading order as it stands in the file; tag 0x0112's values 1 to 8."""
    stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    seen = {
        1: [[1, 2, 3], [4, 5, 6]],
        2: [[3, 2, 1], [6, 5, 4]],
        3: [[6, 5, 4], [3, 2, 1]],
        4: [[4, 5, 6], [1, 2, 3]],
        5: [[1, 4], [2, 5], [3, 6]],
        6: [[4, 1], [5, 2], [6, 3]],
        7: [[6, 3], [5, 2], [4, 1]],
        8: [[3, 6], [2, 5], [1, 4]],
    }
    assert {turn: np.asarray(upright(stored, turn)).tolist() for turn in seen} == seen
    assert upright(stored, 9) is upright(stored, 0) is stored


def test_srgb_under_its_own_profile_or_none_is_not_touched() -> None:
    picture = corners()
    assert all(to_srgb(picture, profile) is picture for profile in (None, b"", srgb(), bytes(MAX_PROFILE + 1)))
    assert [is_srgb(profile) for profile in (None, srgb(), b"rubbish", swapped_profile())] == [True, True, True, False]


def test_a_profile_of_another_kind_of_pixels_is_ignored() -> None:
    """Lab is no space of stored pixels, and a profile of RGB says nothing of inks."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert is_srgb(lab)
    assert quarters(to_srgb(corners(), lab)) == [RED, GREEN, BLUE, WHITE]
    ink = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    assert pixel(to_srgb(ink, swapped_profile()), 0, 0) == pixel(to_srgb(ink, None), 0, 0)


def test_large_pictures_are_turned_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 4 pixels: 2 of them fit into 9 pixels, and where none fits, each is a strip of its own."""
    values = np.arange(20, dtype=np.uint8).reshape(5, 4) * 12
    picture = Image.fromarray(np.stack([values, 255 - values], axis=-1), "LA")
    whole = np.asarray(to_srgb(picture, None))
    for pixels in (9, 3):
        monkeypatch.setattr("filters.images.srgb.STRIP_PIXELS", pixels)
        assert np.array_equal(np.asarray(to_srgb(picture, None)), whole)
    assert whole[0, 0].tolist() == [0, 0, 0]  # black and opaque
    assert whole[4, 3].tolist() == [252, 252, 252]  # 228, 27 of 255 opaque, on white: 228 * 27 / 255 + 228 = 252.1


def test_modes_without_a_scale_raise() -> None:
    for mode in ("I", "F", "LAB"):
        with pytest.raises(ImageFault, match=f"not_an_image: samples of mode {mode}"):
            to_srgb(Image.new(mode, (2, 2)), None)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colour_profiles_are_applied(format_: str) -> None:
    data = encode(corners(), format_, icc_profile=swapped_profile())
    assert quarters(open_picture(data, LIMITS)) == [BLUE, RED, GREEN, WHITE]
    stored = store(data, LIMITS)
    again = Image.open(io.BytesIO(stored.jpeg))
    assert quarters(again) == [BLUE, RED, GREEN, WHITE]
    assert "icc_profile" not in again.info


def display_p3() -> bytes:
    """Return an sRGB profile with Display P3's primaries, adapted to D50 (Apple's profile has the same numbers)."""
    profile = bytearray(srgb())
    places = {
        bytes(profile[at : at + 4]): int.from_bytes(profile[at + 4 : at + 8], "big") for at in range(132, 300, 12)
    }
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for name, values in primaries.items():
        struct.pack_into(">3i", profile, places[name] + 8, *(round(value * 65_536) for value in values))
    return bytes(profile)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_display_p3_is_turned_to_srgb_also_in_a_file_that_fits(format_: str) -> None:
    """P3's (234, 51, 35) is sRGB's red, its (117, 251, 76) sRGB's green: the published corners of sRGB within P3."""
    picture = Image.new("RGB", (48, 32), (234, 51, 35))
    picture.paste((117, 251, 76), (24, 0, 48, 32))
    assert not is_srgb(display_p3())
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format_, {"quality": 100})
    data = encode(picture, format_, icc_profile=display_p3(), **options)
    for seen in (open_picture(data, LIMITS), Image.open(io.BytesIO(store(data, LIMITS).jpeg))):
        assert pixel(seen, 12, 16) == pytest.approx((255, 0, 0), abs=6)
        assert pixel(seen, 36, 16) == pytest.approx((0, 255, 0), abs=6)
    kept = store(data, ImageLimits(store_side=64, keep_metadata=True)).jpeg
    assert "icc_profile" not in Image.open(io.BytesIO(kept)).info  # turned colours under it would be turned twice


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
