"""JPEGs that simplejpeg does not read: halves of them are truncated, doubled data corrupt, and good ones are kept."""

from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from filters.images.decode import ImageLimits, store
from filters.images.header import ImageFault
from filters.images.jpeg import outline
from filters.images.jpeg_doubt import check_what_shows
from filters.images.jpeg_scans import whole_scans
from filters.images.jpeg_tables import AFTER_SCAN
from tests.support.odd_jpegs import joined, odd_jpeg
from tests.support.picture_files import encode, reason

EOI = b"\xff\xd9"
SAMPLINGS = [
    [0x42, 0x11, 0x11],
    [0x24, 0x11, 0x11],
    [0x13, 0x11, 0x11],
    [0x31, 0x11, 0x11],
    [0x44, 0x11, 0x11],
    [0x33, 0x11, 0x11],
    [0x22, 0x12, 0x11],
    [0x22, 0x11, 0x21],
    [0x11, 0x22, 0x22],
    [0x41, 0x21, 0x11],
    [0x22, 0x11, 0x11, 0x12],
]
WAYS: list[dict[str, Any]] = [{}, {"restarts": 3}, {"apart": True}, {"apart": True, "restarts": 7}]
MOST_BLOCKS = 10  # of a unit where components share a scan (ITU T.81, B.2.3)
CASES = [
    (factors, way)
    for factors in SAMPLINGS
    for way in WAYS
    if "apart" in way or sum((one >> 4) * (one & 15) for one in factors) <= MOST_BLOCKS
]
NAMES = [f"{bytes(factors).hex()} {way}" for factors, way in CASES]
SIZES = [(160, 120), (161, 123), (33, 100), (300, 9)]


def start_of_data(data: bytes) -> int:
    at = data.rindex(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize(("factors", "way"), CASES, ids=NAMES)
def test_good_pictures_of_rare_samplings_are_kept(factors: list[int], way: dict[str, Any]) -> None:
    for number, (width, height) in enumerate(SIZES):
        data = odd_jpeg(factors, width, height, seed=number, **way)
        with pytest.raises(ValueError, match="subsampling level"):
            simplejpeg.decode_jpeg_header(data)
        assert whole_scans(outline(data).pixels) == (data, False)
        stored = store(data, ImageLimits())
        assert (stored.width, stored.height) == (width, height)


@pytest.mark.parametrize(("factors", "way"), CASES, ids=NAMES)
def test_half_of_a_picture_of_a_rare_sampling_is_truncated(factors: list[int], way: dict[str, Any]) -> None:
    data = odd_jpeg(factors, 161, 123, **way)
    start = start_of_data(data)
    for share in (0.02, 0.3, 0.5, 0.9):
        assert reason(data[: start + int((len(data) - start) * share)] + EOI) == "truncated"
    middle = (start + len(data)) // 2
    assert reason(data[:middle] + data[middle + 40 :]) in ("truncated", "corrupt")


@pytest.mark.parametrize(("factors", "way"), CASES, ids=NAMES)
def test_data_beyond_a_picture_of_a_rare_sampling_are_corrupt(factors: list[int], way: dict[str, Any]) -> None:
    data = odd_jpeg(factors, 161, 123, **way)
    assert reason(data[:-2] + bytes(range(100, 200)) + EOI) == "corrupt"
    assert reason(data[:-2] + bytes(100) + EOI) is None  # padding


@pytest.mark.parametrize("quality", [20, 75, 100])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("factors", SAMPLINGS[:8], ids=lambda factors: bytes(factors).hex())
def test_real_pictures_of_rare_samplings(factors: list[int], progressive: bool, quality: int) -> None:
    data = joined(*parts(factors, 93, 61, quality, progressive))
    assert whole_scans(outline(data).pixels) == (data, False)
    assert reason(data) is None
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    for start in {starts[0], starts[-1]}:  # another scan cut short than the last one, too
        ended = AFTER_SCAN.search(data, start + 10)  # bytes of the header of a scan of one component
        assert ended is not None
        stop = ended.start()
        middle = start + 10 + (stop - start - 10) // 3
        assert reason(data[:middle] + data[stop:]) == "truncated"


def parts(
    factors: list[int], width: int, height: int, quality: int, progressive: bool
) -> tuple[list[bytes], list[int], int, int]:
    rng = np.random.default_rng(quality)
    across, down = max(one >> 4 for one in factors), max(one & 15 for one in factors)
    grey = []
    for one in factors:
        size = -(-width * (one >> 4) // across), -(-height * (one & 15) // down)
        few = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8))
        noise = Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8))
        picture = Image.blend(few.resize(size), noise, 0.2)
        grey.append(encode(picture, "JPEG", quality=quality, progressive=progressive))
    return grey, factors, width, height


def test_a_cut_between_restart_intervals_is_counted() -> None:
    data = odd_jpeg([0x42, 0x11, 0x11], restarts=3)
    with pytest.raises(ImageFault, match="4 of 13 restart markers of a scan"):
        check_what_shows(data[: data.index(b"\xff\xd4", start_of_data(data))] + EOI)


def test_what_pillow_refuses_and_other_codings_are_left_to_it() -> None:
    fractional = odd_jpeg([0x31, 0x21, 0x11])
    for data in (fractional, fractional.replace(b"\xff\xc0", b"\xff\xc9"), b"\xff\xd8\xff\xd9"):
        check_what_shows(data)
    assert reason(fractional) == "corrupt"


def test_the_means_are_what_was_written() -> None:
    """The builder of these pictures against a decoder of a usual sampling."""
    got = simplejpeg.decode_jpeg(odd_jpeg([0x11], 16, 8), "GRAY")[:, :, 0]
    means = np.random.default_rng(0).integers(-100, 100, 1)[0], 0
    assert got[0, 0] == 128 + means[0]
