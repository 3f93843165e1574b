"""The gate that foreign bytes pass: every format, what is stored of a picture, and what is refused, and why."""

import hashlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
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
    NO_PICTURES,
    RED,
    WHITE,
    bombs,
    corners,
    encode,
    hungry,
    png,
    quarters,
    reason,
    swapped_profile,
)

pytestmark = pytest.mark.filterwarnings("error")


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


def test_files_that_fit_are_kept_byte_for_byte() -> None:
    plain = [encode(corners(), "JPEG", quality=70), encode(corners(), "JPEG", progressive=True)]
    for data in plain:
        stored = store(data, LIMITS)
        assert stored.jpeg == data
        assert (stored.width, stored.height, stored.original_width, stored.original_height) == (48, 32, 48, 32)
    assert store(plain[0], ImageLimits(store_side=None)).jpeg == plain[0]
    assert store(plain[0], ImageLimits(store_side=32)).jpeg == plain[0]


def test_what_is_no_part_of_the_picture_is_not_stored() -> None:
    """The scans and tables of a file that fits stay byte for byte; all else goes, whatever it is."""
    plain = encode(corners(), "JPEG")
    exif = Image.Exif()
    exif[0x0112], exif[0x8825] = 1, {1: "N", 2: (48.0, 51.0, 24.0)}
    second = encode(corners(), "JPEG", comment=b"another picture")
    for data in [
        encode(corners(), "JPEG", comment=b"hello"),
        encode(corners(), "JPEG", exif=exif),
        encode(corners(), "JPEG", xmp=b"<x:xmpmeta/>"),
        encode(corners(), "JPEG", icc_profile=srgb()),
        plain + bytes(range(256)) * 12_000,  # 3 MB behind the end
        plain + second,
        plain[:2] + b"\xff\xed\0\x10Photoshop 3.0\0" + plain[2:],
        plain[:2] + b"\xff\xfe\xff\xff\0\0".ljust(65_537, b"x") * 20 + plain[2:],  # 1.3 MB of comments
    ]:
        assert data != plain
        assert store(data, LIMITS).jpeg == plain


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def place() -> Image.Exif:
    """Return EXIF with a place, and a picture that lies on its side."""
    exif = Image.Exif()
    exif[0x0112], exif[0x8825] = 6, {1: "N", 2: (48.0, 51.0, 24.0)}
    return exif


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="a title"/></x:xmpmeta>'
KEEP = ImageLimits(max_pixels=1_000_000, store_side=64, keep_metadata=True)


def told(jpeg: bytes) -> tuple[Any, ...]:
    """Return orientation, latitude, XMP and comment of a JPEG."""
    picture = Image.open(io.BytesIO(jpeg))
    exif = picture.getexif()
    return exif.get(0x0112), exif.get_ifd(0x8825).get(2), picture.info.get("xmp"), picture.info.get("comment")


def test_with_keep_metadata_a_kept_file_has_all_but_what_lies_behind_its_end() -> None:
    exif = place()
    exif[0x0112] = 1
    options = {"exif": exif, "xmp": XMP, "comment": b"hello", "icc_profile": srgb()}
    data = encode(corners(), "JPEG", **options)
    assert told(store(data, LIMITS).jpeg) == (None, None, None, None)
    kept = store(data + b"secret", KEEP).jpeg
    assert told(kept) == (1, (48.0, 51.0, 24.0), XMP.replace(b'"6"', b'"1"'), b"hello")
    assert Image.open(io.BytesIO(kept)).info["icc_profile"] == srgb()
    assert b"secret" not in kept
    assert quarters(open_picture(kept, LIMITS)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(("format_", "comment"), [("JPEG", b"hello"), ("PNG", None), ("WEBP", None)])
def test_with_keep_metadata_a_turned_picture_is_not_turned_again(format_: str, comment: bytes | None) -> None:
    options: dict[str, Any] = {"exif": place(), "xmp": XMP}
    if format_ == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"exif": place(), "pnginfo": info}
    data = encode(corners(), format_, **options, **({"comment": comment} if comment else {"lossless": True}))
    expected = [BLUE, RED, WHITE, GREEN]
    for limits in (LIMITS, KEEP):
        stored = store(data, limits)
        assert (stored.width, stored.height) == (32, 48)
        assert quarters(open_picture(stored.jpeg, limits)) == expected
    upright = (1, (48.0, 51.0, 24.0), XMP.replace(b'"6"', b'"1"'), comment)
    assert told(stored.jpeg) == upright
    assert told(store(stored.jpeg, KEEP).jpeg) == upright
    assert store(stored.jpeg, LIMITS).jpeg == store(data, LIMITS).jpeg


def test_files_that_do_not_fit_are_encoded_again() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    others = [
        encode(corners(), "JPEG", exif=exif),
        encode(corners(), "JPEG", icc_profile=swapped_profile()),
        encode(corners().convert("L"), "JPEG"),
        encode(corners().convert("CMYK"), "JPEG"),
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


def large(profile: bytes, size: int) -> bytes:
    """Return a profile of `size` bytes: its length stands at its start, and nothing points at what is added."""
    return size.to_bytes(4, "big") + profile[4:] + np.random.default_rng(1).bytes(size - len(profile))


@pytest.mark.parametrize("size", [1_100_000, 3_000_000])
@pytest.mark.parametrize(("format_", "options"), [option for option in FORMATS if option[0] not in ("GIF", "BMP")])
def test_a_large_colour_profile_is_applied(format_: str, options: dict[str, Any], size: int) -> None:
    """Pillow calls a PNG with a profile of more than 1 MB broken. Under this one red is blue, green red, blue green."""
    data = encode(corners(), format_, **options, icc_profile=large(swapped_profile(), size))
    assert len(data) > size / 2
    assert quarters(open_picture(data, LIMITS)) == [BLUE, RED, GREEN, WHITE]
    stored = Image.open(io.BytesIO(store(data, LIMITS).jpeg))
    assert quarters(stored) == [BLUE, RED, GREEN, WHITE]
    assert "icc_profile" not in stored.info


@pytest.mark.parametrize(("format_", "options"), [option for option in FORMATS if option[0] not in ("GIF", "BMP")])
def test_a_profile_beyond_all_bounds_is_ignored_and_the_picture_kept(format_: str, options: dict[str, Any]) -> None:
    data = encode(corners(), format_, **options, icc_profile=large(swapped_profile(), (4 << 20) + 1))
    assert quarters(open_picture(data, LIMITS)) == [RED, GREEN, BLUE, WHITE]
    assert quarters(Image.open(io.BytesIO(store(data, LIMITS).jpeg))) == [RED, GREEN, BLUE, WHITE]


def test_texts_that_pillow_would_call_too_large_are_left_out_of_a_png() -> None:
    """iTXt, zTXt and tEXt of 2 MB each, 100 of them, and a chunk of EXIF of 2 MB: none is the picture's business."""
    text = b"Comment\0" + b"a" * 2_000_000
    packed = b"Comment\0\0" + zlib.compress(bytes(2_000_000))
    international = b"Comment\0\1\0\0\0" + zlib.compress(bytes(2_000_000))
    extra = [(b"tEXt", text), (b"zTXt", packed), (b"iTXt", international), (b"eXIf", b"II*\0" + bytes(2_000_000))]
    assert reason(png(1, 1, (8, 0), b"\0\7", *extra, *[(b"zTXt", packed)] * 100)) is None


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


@pytest.mark.parametrize(("format_", "options"), FORMATS)
def test_cut_anywhere_it_is_truncated_or_no_picture(format_: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    data = encode(picture, format_, **options)
    assert {reason(data[:size]) for size in (len(data) // 2, len(data) * 3 // 4, 60, 30)} == {"truncated"}
    assert {reason(data[:size]) for size in range(0, 40)} <= {"truncated", "not_an_image"}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture(name: str) -> None:
    assert reason(NO_PICTURES[name]) == "not_an_image"


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_from_the_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filters.images.decode._decoder", lambda format_: pytest.fail(f"{format_} reached a decoder"))
    data = bombs()[name]
    assert reason(data, ImageLimits()) == "too_many_pixels"
    with pytest.raises(ImageFault, match="too_many_pixels"):
        inspect(data, ImageLimits())


MEMORY = """
import resource, sys
from filters.images.decode import ImageFault, ImageLimits, open_picture, store
from PIL import Image, ImageCms
import filters.images.srgb
# a reader that trusts these files must not take the machine along
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
data = sys.stdin.buffer.read()
before = peak()
for way in (open_picture, store):
    try:
        print(way(data, ImageLimits(store_side=64)) and "picture")
    except ImageFault as fault:
        print(fault.reason)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("png text bomb", "picture"),
        ("png profile bomb", "picture"),
        ("gif comment of 12 MB", "picture"),
        ("tiff tags", "picture"),
        ("webp exif", "picture"),
        ("png exif", "picture"),
        ("jpeg exif", "picture"),
        ("avif exif", "picture"),
    ],
)
def test_hungry_metadata_is_not_fed(name: str, expected: str) -> None:
    """None of this is the picture's business: it is left out before a decoder sees it."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], input=hungry(name), capture_output=True, timeout=120, check=True
    )
    first, second, grown_mib = done.stdout.decode().split()
    assert (first, second) == (expected, expected)
    assert int(grown_mib) < 96


LARGE = [
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {}),
    ("I;16", "PNG", {}),
    ("RGB", "JPEG", {"progressive": True}),
    ("CMYK", "JPEG", {}),
    ("RGB", "WEBP", {"lossless": True, "method": 0}),
    ("RGB", "TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("mode", "format_", "options"), LARGE)
def test_memory_for_large_pictures_is_bounded(mode: str, format_: str, options: dict[str, Any]) -> None:
    """16 million pixels: 4 bytes each decoded, as much again where they must be turned, three times that in libwebp;
    nothing more."""
    data = encode(Image.new(mode, (4000, 4000)), format_, **options)
    script = MEMORY.replace("(open_picture, store)", "(store,)").replace("import filters", "import cv2, numpy, filters")
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, timeout=120, check=True)
    said, grown_mib = done.stdout.decode().rsplit(maxsplit=1)
    assert said == "picture"
    assert int(grown_mib) < (20 if format_ == "WEBP" else 10) * 16_000_000 / (1 << 20) + 32


def test_animations() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    for format_ in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], format_, save_all=True, append_images=frames[1:])
        assert reason(data) == "animated", format_
    assert reason(encode(frames[0], "AVIF", save_all=True, append_images=frames[1:])) == "animated"


def test_what_is_no_animation() -> None:
    frames = [corners(), Image.new("RGB", (48, 32), BLUE)]
    for format_ in ("TIFF", "MPO"):
        data = encode(frames[0], format_, save_all=True, append_images=frames[1:])
        assert quarters(open_picture(data, LIMITS)) == [RED, GREEN, BLUE, WHITE]
    kept = store(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]), LIMITS)
    assert Image.open(io.BytesIO(kept.jpeg)).format == "JPEG"
    single = png(1, 1, (8, 0), b"\0\7", (b"acTL", struct.pack(">II", 1, 0)))
    assert reason(single) is None


def test_pillows_own_limits_and_switches_stay_as_they_are() -> None:
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    picture = encode(Image.new("1", (10_000, 9_500)), "PNG")  # more than Pillow's own 89 million
    assert open_picture(picture, ImageLimits(max_pixels=95_000_000)).size == (10_000, 9_500)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
    assert before[1] is False


def test_random_damage_is_always_a_reason() -> None:
    """2,000 files with some bytes changed: a picture or an ImageFault, nothing else, and no warning."""
    rng = np.random.default_rng(7)
    picture = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    reasons = set()
    for format_, options in FORMATS:
        data = encode(picture, format_, **options)
        for _ in range(180):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
                damaged[at] = rng.integers(0, 256)
            try:
                store(bytes(damaged), LIMITS)
            except ImageFault as fault:
                reasons.add(fault.reason)
    assert reasons <= {"not_an_image", "too_many_pixels", "animated", "truncated", "corrupt"}
    assert len(reasons) >= 4
