"""filters/fetch: images.py with jpeg.py, chunks.py, gif.py and tiff.py: what is refused from its header, and why."""

import io
import struct
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from filters.images.decode import ImageFault, ImageLimits, inspect, open_picture, store
from tests.support.picture_files import (
    BLUE,
    FORMATS,
    GREEN,
    LIMITS,
    NO_PICTURES,
    ONE_PIXEL,
    RED,
    WHITE,
    bombs,
    corners,
    encode,
    hungry,
    png,
    quarters,
    reason,
    tiff,
)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("format_", "options"), FORMATS)
def test_cut_anywhere_it_is_truncated_or_no_picture(format_: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    data = encode(picture, format_, **options)
    assert {reason(data[:size]) for size in (len(data) // 2, len(data) * 3 // 4, 60, 30)} == {"truncated"}
    assert {reason(data[:size]) for size in range(0, 40)} <= {"truncated", "not_an_image"}


def test_a_jpeg_without_its_end_mark_is_truncated() -> None:
    data = encode(corners(), "JPEG")
    assert [reason(data[:-cut]) for cut in (1, 2, 10)] == ["truncated"] * 3


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture(name: str) -> None:
    assert reason(NO_PICTURES[name]) == "not_an_image"


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_from_the_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from filters.images import decode as images

    monkeypatch.setattr(images, "_decoder", lambda format_: pytest.fail(f"{format_} reached a decoder"))
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
        ("png profile bomb", "corrupt"),
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


def test_tags_that_claim_more_than_the_file() -> None:
    assert reason(tiff([*ONE_PIXEL, *((tag, 7, 900, 0) for tag in (320, 336, 347, 34675))], bytes(1000))) == "corrupt"
    assert reason(tiff([*ONE_PIXEL, (34675, 7, 10_000, 0)], bytes(1000))) == "truncated"
    assert (
        reason(tiff([*ONE_PIXEL, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 1)]))
        == "corrupt"
    )


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


def test_corrupt_pictures() -> None:
    good = encode(corners(), "PNG")
    at = good.index(b"IDAT") + 6
    assert reason(good[:at] + bytes([good[at] ^ 0xFF, good[at + 1] ^ 0xFF]) + good[at + 2 :]) == "corrupt"
    assert reason(png(0, 5, (8, 0), b"")) == "corrupt"
    assert reason(png(1, 1, (7, 9), b"\0\7")) == "corrupt"
    assert reason(b"\xff\xd8\xff\xd9") == "corrupt"
    jpeg = encode(corners(), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    assert reason(jpeg[:frame] + jpeg[frame : frame + 19] + jpeg[frame:]) == "corrupt"  # two frame headers
    assert reason(jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]) == "corrupt"  # 12 bits
    scans = encode(corners(), "JPEG", progressive=True)
    assert reason(scans[:-2] + b"\xff\xda\0\0" * 200 + b"\xff\xd9") == "corrupt"
    assert reason(b"\xff\xd8" + b"\xff\xfe\0\2" * 5000 + jpeg[2:]) == "corrupt"
    assert reason(b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b";") == "corrupt"


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


def test_a_complaint_of_the_parser_is_one_whether_it_comes_bare_or_wrapped():
    """A connection that ends in the same moment wraps it: endless trailers were `incomplete_body` on a busy machine."""
    import aiohttp
    from aiohttp.http_exceptions import BadHttpMessage, TransferEncodingError

    from filters.fetch.faults import in_body

    def wrapped(cause):
        error = aiohttp.ClientPayloadError("Response payload is not completed")
        error.__cause__ = cause
        return in_body(error).reason

    assert (
        in_body(BadHttpMessage("Too many headers")).reason
        == wrapped(BadHttpMessage("Too many headers"))
        == "bad_response"
    )
    assert wrapped(TransferEncodingError("not enough data")) == wrapped(None) == "incomplete_body"
