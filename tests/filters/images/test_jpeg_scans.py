"""What libjpeg warns of: missing and damaged data are reasons, what costs no pixel is passed over."""

import io
import itertools
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, JpegImagePlugin

from filters.images.decode import ImageLimits, store
from filters.images.header import ImageFault
from filters.images.jpeg import outline
from filters.images.jpeg_scans import FEW_BYTES, MOST_CUTS, clean_pixels, scale_of, whole_scans
from filters.images.jpeg_tables import LOOSE_BYTES
from filters.images.pdq import pdq_of, pdq_of_jpeg
from tests.support.picture_files import encode, reason

EOI = b"\xff\xd9"
ANY = ImageLimits()
WAYS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"subsampling": 0, "optimize": True},
    {"progressive": True, "restart_marker_blocks": 5},
]


def noise(width: int = 96, height: int = 80) -> Image.Image:
    rng = np.random.default_rng(width + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(**options: Any) -> bytes:
    return encode(noise(), "JPEG", **options)


def with_rows(data: bytes, rows: int) -> bytes:
    """Return a JPEG whose frame header says another number of rows."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + rows.to_bytes(2, "big") + data[at + 7 :]


def scans(data: bytes) -> list[int]:
    return [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]


def many_scans() -> list[bytes]:
    """Return a grey picture of one block: its header, a scan of its mean, and one for each of 63 coefficients."""
    table = bytes([1]) + bytes(15) + b"\0"  # one code, a bit long: no difference, or the end of a block
    tables = [b"\xff\xdb\0\x43\0" + b"\1" * 64, b"\xff\xc4\0\x26\0" + table + b"\x10" + table]
    frame = b"\xff\xc2\0\x0b\x08\0\x08\0\x08\1\1\x11\0"
    bands = [(0, 0), *((place, place) for place in range(1, 64))]
    found = [b"\xff\xda\0\x08\1\1\0" + bytes([first, last, 0]) + b"\x7f" for first, last in bands]
    return [b"\xff\xd8" + b"".join(tables) + frame, *found]


@pytest.mark.parametrize("options", WAYS)
def test_half_a_scan_with_an_end_mark_is_truncated(options: dict[str, Any]) -> None:
    """Decoders show the other half grey."""
    data = jpeg(**options)
    for share in (0.3, 0.5, 0.9):
        assert reason(data[: int(len(data) * share)] + EOI) == "truncated"
    assert reason(data[: scans(data)[-1] + 40] + EOI) == "truncated"


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("marker", [0x01, 0x02, 0x3A, 0xBF, 0xC0, 0xC4, 0xD8, 0xDA, 0xDB, 0xE3, 0xF0, 0xFE])
def test_half_a_scan_with_a_broken_marker_before_its_end_mark_is_truncated(
    marker: int, options: dict[str, Any]
) -> None:
    """libjpeg's error about the marker hides its warning about the data."""
    data = jpeg(**options)
    for share in (0.3, 0.5, 0.9):
        half = data[: int(len(data) * share)]
        assert reason(half + bytes([255, marker, 255, 255]) + EOI) == "truncated"


@pytest.mark.parametrize("table", [b"\xff\xc4\0\x04\0\0", b"\xff\xdb\0\x05\7\0\0", b"\xff\xdd\0\5\0\0\0"])
def test_an_error_behind_the_start_of_the_data_is_corrupt(table: bytes) -> None:
    """A table that is none, between two scans: libjpeg gives up."""
    data = jpeg(progressive=True)
    second = data.rfind(b"\xff\xc4", 0, scans(data)[1])
    assert reason(data[:second] + table + data[second:]) == "corrupt"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("value", [0, 0x55, 0xAA])
def test_zeros_in_place_of_data_are_truncated(share: float, value: int) -> None:
    """A download that broke off in a file set up beforehand; its end came."""
    data = jpeg(quality=100, subsampling=0)
    start = int(len(data) * share)
    start = max(start, scans(data)[0] + 30)
    assert reason(data[:start] + bytes([value]) * (len(data) - 2 - start) + EOI) in ("truncated", "corrupt")
    if not value:
        assert reason(data[:start] + bytes(len(data) - 2 - start) + EOI) == "truncated"


@pytest.mark.parametrize("options", WAYS)
def test_more_rows_in_the_header_than_came_are_truncated(options: dict[str, Any]) -> None:
    assert reason(with_rows(jpeg(**options), 160)) == "truncated"
    assert reason(with_rows(jpeg(**options), 81)) in (None, "truncated")  # rows come by eights or sixteens


@pytest.mark.parametrize("options", WAYS)
def test_fewer_rows_in_the_header_than_came_are_corrupt(options: dict[str, Any]) -> None:
    """The data are those of another picture than the header's."""
    assert reason(with_rows(jpeg(**options), 16)) == "corrupt"


def test_a_progressive_picture_that_ends_between_two_scans_is_truncated() -> None:
    """Nothing warns of it: decoders show what came, blurred."""
    data = jpeg(progressive=True)
    starts = scans(data)
    assert len(starts) == 10
    for start in starts[1:]:
        cut = data.rfind(b"\xff\xc4", 0, start) if data[start - 40 : start].find(b"\xff\xc4") >= 0 else start
        assert reason(data[:cut] + EOI) == "truncated"


def test_damaged_data_are_corrupt_or_truncated() -> None:
    rng = np.random.default_rng(5)
    for options in WAYS:
        data = bytearray(jpeg(**options))
        middle = (scans(bytes(data))[0] + len(data)) // 2
        data[middle : middle + 300] = bytes(rng.integers(0, 255, 300).astype(np.uint8))  # no FF, so no marker
        assert reason(bytes(data)) in ("corrupt", "truncated")


def test_a_lost_restart_interval_is_corrupt() -> None:
    data = jpeg(restart_marker_rows=1)
    second, third = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
    assert reason(data[:second] + data[third:]) == "corrupt"


@pytest.mark.parametrize("options", WAYS)
def test_a_few_bytes_behind_the_data_cost_no_pixel_and_are_taken_off(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    whole = store(data, ANY).jpeg
    assert whole == data
    for loose in (b"abc", b"x" * LOOSE_BYTES, bytes(5000)):
        stored = store(data[:-2] + loose + EOI, ANY).jpeg
        assert len(stored) <= len(data) + 8  # as many are in the decoder's hands before it counts
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), np.asarray(Image.open(io.BytesIO(data))))
    assert reason(data[:-2] + bytes(range(200)) + EOI) == "corrupt"  # of which some might be data


def test_bytes_behind_the_data_of_scans_are_found_in_each() -> None:
    data = outline(jpeg(progressive=True)).pixels
    starts = scans(data)
    pieces = [data[a:b] for a, b in itertools.pairwise([0, *starts, len(data) - 2])]

    def loose(count: int) -> bytes:
        """Return the picture with 40 bytes behind the data of the last `count` scans."""
        parts = list(pieces)
        for number in range(len(parts) - count, len(parts)):
            tables = parts[number].find(b"\xff\xc4", 2)
            end = tables if tables > 0 else len(parts[number])
            parts[number] = parts[number][:end] + b"y" * 40 + parts[number][end:]
        return b"".join(parts) + EOI

    cut, read = whole_scans(loose(MOST_CUTS))
    assert read
    assert len(data) <= len(cut) <= len(data) + 8 * MOST_CUTS
    with pytest.raises(ImageFault, match="in 2 scans before"):
        whole_scans(loose(MOST_CUTS + 2))


def test_bytes_behind_the_data_of_the_seventeenth_scan_and_further_are_found() -> None:
    """Sixteen marks tell scans apart."""
    pieces = many_scans()
    for number in (3, 16, 19, len(pieces) - 1):
        parts = [*pieces[: number + 1], b"y" * 40, *pieces[number + 1 :]]
        cut, read = whole_scans(b"".join(parts) + EOI)
        assert read
        assert len(b"".join(pieces)) + 2 <= len(cut) <= len(b"".join(pieces)) + 2 + 8
        assert cut.startswith(b"".join(pieces[: number + 1]))


def test_what_libjpeg_warns_of_in_vain_is_passed_over() -> None:
    data = jpeg()
    version = data.replace(b"JFIF\0\1\1", b"JFIF\0\7\1")
    adobe = data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\7" + data[2:]
    scan = scans(data)[0]
    parameters = data[: scan + 11] + b"\0\0\0" + data[scan + 14 :]  # what a sequential scan says of bands: nothing
    between = data[:20] + b"rubbish" + data[20:]
    for odd in (version, adobe, parameters, between):
        assert odd != data
        assert reason(odd) is None


def test_what_is_no_jpeg_inside_is_left_to_the_decoder() -> None:
    pixels, read = whole_scans(b"\xff\xd8\xff\xd9")
    assert (pixels, read) == (b"\xff\xd8\xff\xd9", False)


SIZES = [(1, 1), (8, 8), (16, 17), (17, 33), (121, 90)]


def test_no_alarm_is_false() -> None:
    """1,350 sound pictures of two encoders: every size of block, subsampling, restart interval, table and order."""
    alarms, count = [], 0
    for size in SIZES:
        for kind in (noise(*size), Image.new("RGB", size, (200, 90, 10))):
            ways = itertools.product((5, 75, 95), (0, 1, 2), (False, True), (False, True), (0, 1, 3))
            for quality, subsampling, progressive, optimize, restart in ways:
                told = {"quality": quality, "progressive": progressive, "optimize": optimize}
                data = encode(kind, "JPEG", subsampling=subsampling, restart_marker_blocks=restart, **told)
                alarms += [(size, told)] * (store(data, ANY).jpeg != data)
                count += 1
            for mode in ("L", "CMYK", "1"):
                count += 1
                alarms += [(size, mode)] * (reason(encode(kind.convert(mode), "JPEG")) is not None)
            for factor, progressive, restart in itertools.product(
                (0x411111, 0x211111, 0x121111, 0x221111), (0, 1), (0, 1, 5)
            ):
                flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
                data = cv2.imencode(".jpg", np.asarray(kind), [*flags, cv2.IMWRITE_JPEG_RST_INTERVAL, restart])[1]
                alarms += [(size, flags)] * (store(data.tobytes(), ANY).jpeg != data.tobytes())
                count += 1
    assert (alarms, count) == ([], 10 * (108 + 3 + 24))


def test_loose_bytes_that_are_most_of_a_small_scan_are_another_pictures_data() -> None:
    """Of 16 x 8 pixels of 16 x 16 more than half of the data is left over, and less than LOOSE_BYTES."""
    few = noise(16, 16).convert("L").quantize(4).convert("L")
    data = encode(few, "JPEG", quality=20)
    start = scans(data)[0] + 10
    assert 2 * FEW_BYTES < len(data) - 2 - start < LOOSE_BYTES
    assert reason(data) is None
    assert reason(with_rows(data, 8)[:-2] + data[start : start + 20].replace(b"\xff\0", b"\1") + EOI) == "corrupt"
    assert reason(data[:-2] + b"abcdefgh" + EOI) is None  # few
    assert reason(data[:-2] + bytes(60) + EOI) is None  # padding


def drafted(data: bytes, wanted: tuple[int, int]) -> Image.Image:
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    picture.draft("", wanted)
    return picture


@pytest.mark.parametrize(
    "options",
    [*WAYS, {"subsampling": 1}, {"subsampling": "4:1:1"}, {"keep_rgb": True, "subsampling": 0}],
)
def test_what_is_read_for_warnings_are_the_pixels_that_pillow_shows(options: dict[str, Any]) -> None:
    check_pixels(encode(noise(161, 123), "JPEG", **options))


def test_so_of_a_sampling_that_pillow_does_not_write() -> None:
    check_pixels(simplejpeg.encode_jpeg(np.asarray(noise(161, 123)), 90, "RGB", "440"))


def check_pixels(data: bytes) -> None:
    pixels = outline(data).pixels
    for wanted, scale in (((161, 123), 1), ((81, 62), 1), ((80, 61), 2), ((54, 41), 2), ((40, 30), 4), ((9, 7), 8)):
        assert scale_of((161, 123), wanted) == scale
        found = clean_pixels(pixels, (161, 123), scale)
        assert found is not None
        np.testing.assert_array_equal(found, np.asarray(drafted(pixels, wanted)))
    assert clean_pixels(pixels[: len(pixels) // 2] + EOI, (161, 123), 1) is None
    assert clean_pixels(pixels[:-2] + bytes(80) + EOI, (161, 123), 1) is None
    assert clean_pixels(pixels, (161, 124), 1) is None


def test_marks_in_versions_of_their_own_change_no_colour() -> None:
    coded_as_rgb = outline(encode(noise(), "JPEG", keep_rgb=True, subsampling=0)).pixels
    data = outline(jpeg()).pixels
    later = data.replace(b"JFIF\0\1\1", b"JFIF\0\7\7")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
    for pixels in (data, later, coded_as_rgb, *(data[:2] + adobe + bytes([way]) + data[20:] for way in (0, 1, 2, 9))):
        found = clean_pixels(pixels, (96, 80), 1)
        assert found is not None
        np.testing.assert_array_equal(found, np.asarray(drafted(pixels, (96, 80))))


def test_a_picture_is_decoded_once_for_warnings_pixels_and_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.effect_noise((560, 300), 40).convert("RGB"), "JPEG", quality=90)
    kept, made = store(data, ANY), store(data, ImageLimits(store_side=280))
    assert pdq_of(kept, data, ANY) == pdq_of_jpeg(kept.jpeg)
    monkeypatch.setattr("filters.images.jpeg_scans.MOST_AT_ONCE", 0)  # read twice, by two decoders
    assert (store(data, ANY), store(data, ImageLimits(store_side=280))) == (kept, made)
    monkeypatch.undo()
    monkeypatch.setattr("filters.images.decode.whole", lambda _: pytest.fail("judged apart"))
    monkeypatch.setattr("filters.images.decode._load", lambda *_: pytest.fail("decoded again"))
    assert (store(data, ANY), store(data, ImageLimits(store_side=280))) == (kept, made)
