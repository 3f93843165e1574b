"""Numbered PNGs: their names, those that are there, the same bytes each time."""

from pathlib import Path

import numpy as np

from pipeline.sampling.pngs import Pngs


def pixels(count):
    return np.arange(count * 2 * 2 * 3, dtype=np.uint8).reshape(count, 2, 2, 3)


def test_names_have_the_digits_of_the_last():
    assert Pngs(Path("x"), 7).path(3).name == "00003.png"
    assert Pngs(Path("x"), 1_000_001).path(3).name == "0000003.png"


def test_pictures_are_counted_up_to_the_first_that_is_missing(tmp_path):
    pngs = Pngs(tmp_path, 5)
    assert pngs.pictures == 0
    pngs.add(0, pixels(3))
    pngs.add(4, pixels(1))
    assert pngs.pictures == 3
    pngs.add(3, pixels(1))
    assert pngs.pictures == 5
    np.testing.assert_array_equal(pngs.read(2), pixels(3)[2])


def test_the_same_pixels_are_the_same_bytes(tmp_path):
    pngs = Pngs(tmp_path, 2)
    pngs.add(0, pixels(1))
    pngs.add(1, pixels(1))
    assert pngs.path(0).read_bytes() == pngs.path(1).read_bytes()
    pngs.finish()
