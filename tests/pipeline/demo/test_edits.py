"""Edits of the demo's pictures: sizes and crops worked out by hand, copies that still look alike, marks that show."""

import numpy as np
import pytest
from PIL import Image

from filters.dedup import phash
from pipeline.demo import edits
from tests.support.small_web import picture


def array(data: bytes) -> np.ndarray:
    return np.asarray(edits.decode(data)).astype(int)


def distance(first: Image.Image, second: Image.Image) -> int:
    """Return how many of the 64 bits of two pictures' perceptual hashes differ."""
    one, other = phash([first, second])
    return int(one ^ other).bit_count()


def test_smaller_keeps_a_floor() -> None:
    assert edits.decode(edits.smaller(Image.new("RGB", (1000, 800)))).size == (500, 400)
    assert edits.decode(edits.smaller(Image.new("RGB", (288, 288)))).size == (224, 224)
    assert edits.decode(edits.smaller(Image.new("RGB", (200, 100)))).size == (200, 100)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((300, 200), 50, (75, 50)), ((200, 300), 50, (50, 75)), ((100, 100), 150, (150, 150)), ((301, 100), 33, (99, 33))],
)
def test_a_thumbnails_short_side_is_what_was_asked(size, side, expected) -> None:
    assert edits.decode(edits.thumbnail(Image.new("RGB", size), side)).size == expected


def test_a_crop_takes_its_share_off_each_side() -> None:
    stripes = np.zeros((100, 200, 3), np.uint8)
    stripes[:, 4:196] = 255  # what 2 % of each side leaves: 200 - 2 x 4 columns, 100 - 2 x 2 rows
    cropped = array(edits.cropped(Image.fromarray(stripes)))
    assert cropped.shape == (96, 192, 3)
    assert cropped.min() > 240
    assert edits.decode(edits.cropped(Image.fromarray(stripes), share=0.1)).size == (160, 80)


def test_a_strip_comes_from_the_middle() -> None:
    bands = np.zeros((300, 130, 3), np.uint8)
    bands[138:162] = 200  # 130 x 240 // 1300 = 24 rows, from (300 - 24) // 2 on
    strip = array(edits.strip(Image.fromarray(bands)))
    assert strip.shape == (240, 1300, 3)
    assert abs(strip[4:-4] - 200).max() < 12


def test_copies_are_jpegs_that_a_perceptual_hash_takes_for_the_same() -> None:
    original = picture(1, 300, 260)
    for copy in (edits.reencoded(original), edits.smaller(original), edits.cropped(original)):
        assert copy.startswith(b"\xff\xd8\xff")
        assert distance(original, edits.decode(copy)) <= 10  # unrelated pictures differ in half of the bits
    assert distance(original, picture(2, 300, 260)) > 16
    assert (
        len(edits.reencoded(original, quality=10)) < len(edits.reencoded(original)) < len(edits.reencoded(original, 90))
    )


def test_a_stronger_mark_changes_more_pixels() -> None:
    grey = Image.new("RGB", (400, 300), (90, 90, 90))
    means = [array(edits.stamped(grey, "shutterstock", alpha, tiled=True)).mean() for alpha in (90, 140, 200)]
    assert means[0] < means[1] < means[2]


def test_one_mark_stands_in_the_middle_and_tiles_reach_every_quarter() -> None:
    grey = Image.new("RGB", (400, 300), (90, 90, 90))
    single, tiles = (
        abs(array(edits.stamped(grey, "dreamstime", 200, tiled)) - 90).max(axis=2) > 40 for tiled in (False, True)
    )
    rows, columns = np.nonzero(single)
    assert 110 < rows.min() < rows.max() < 190  # one line of letters, round the 150th of 300 rows
    assert abs((columns.min() + columns.max()) / 2 - 200) < 8
    for top in (0, 150):
        for left in (0, 200):
            assert tiles[top : top + 150, left : left + 200].any()


def test_a_mark_that_is_clear_changes_nothing() -> None:
    grey = Image.new("RGB", (120, 90), (90, 90, 90))
    assert abs(array(edits.stamped(grey, "dreamstime", 0, tiled=False)) - 90).max() <= 1
