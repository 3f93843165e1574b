"""Centre crops equal the reference, and pixels survive the way to tensors and back."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from filters.images.scaled import MOST_PIXELS
from tests.support.resizes import EXTREME, largest_resize
from tests.support.vq_oracle import ORACLE, needs_oracle, oracle_module
from tokenize_shards.images import center_crop, middle, scale_to, to_tensor, to_uint8


@needs_oracle
def test_crops_equal_the_reference() -> None:
    oracle = oracle_module()
    cases = json.loads((ORACLE / "center_crop.json").read_text())["cases"]
    cases = [case for case in cases if case["width"] < 3000]  # to draw the widest takes as long as all the others
    assert len(cases) == 7
    for case in cases:
        width, height = case["width"], case["height"]
        image = Image.fromarray(oracle.smooth_images(1, max(width, height), case["seed"])[0][:height, :width])
        cropped = np.asarray(center_crop(image, case["size"]))
        assert hashlib.sha256(np.ascontiguousarray(cropped)).hexdigest() == case["sha256"], case


def test_a_picture_of_the_right_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(np.asarray(center_crop(Image.fromarray(pixels), 64)), pixels)


def test_an_odd_margin_leaves_its_pixel_on_the_right_and_below() -> None:
    columns = np.arange(7, dtype=np.uint8)
    pixels = np.broadcast_to(columns[None, :, None], (4, 7, 3))
    assert np.asarray(center_crop(Image.fromarray(pixels.copy()), 4))[0, :, 0].tolist() == [1, 2, 3, 4]
    tall = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert np.asarray(center_crop(Image.fromarray(tall), 4))[:, 0, 0].tolist() == [1, 2, 3, 4]


def test_halving_is_a_box_filter() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[::2, ::2] = 200  # one pixel of each 2 x 2 square: the mean is 50
    assert np.asarray(center_crop(Image.fromarray(pixels), 4)).reshape(-1, 3).tolist() == [[50, 50, 50]] * 16


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (1000, 7), (33, 31)])
def test_every_shape_gives_the_square(size: tuple[int, int]) -> None:
    assert center_crop(Image.new("RGB", size), 32).size == (32, 32)


def test_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="size 0"):
        center_crop(Image.new("RGB", (8, 8)), 0)


def test_to_tensor_maps_bytes_to_minus_one_and_one() -> None:
    image = Image.new("RGB", (3, 2), (0, 255, 51))
    x_BCHW = to_tensor([image, np.asarray(image)])
    assert x_BCHW.shape == (2, 3, 2, 3)
    assert x_BCHW.dtype == torch.float32
    assert x_BCHW.is_contiguous()
    assert x_BCHW[:, :, 0, 0].tolist() == [[-1.0, 1.0, pytest.approx(51 / 127.5 - 1)]] * 2


def test_to_tensor_takes_grey_and_refuses_mixed_sizes() -> None:
    assert to_tensor([Image.new("L", (2, 2), 255)]).unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="one size"):
        to_tensor([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))])
    with pytest.raises(ValueError, match="one size"):
        to_tensor([])


def test_to_uint8_truncates_after_adding_half_and_clamps() -> None:
    # 127.5 * 0 + 128 = 128; 127.5 * 0.999 + 128 = 255.37 -> 255; 127.5 * -0.99 + 128 = 1.775 -> 1
    x = torch.tensor([-3.0, -1.0, -0.99, 0.0, 0.999, 3.0]).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    assert to_uint8(x)[0, :, :, 0].tolist() == [[0, 0, 1], [128, 255, 255]]


def test_bytes_survive_the_round_trip() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(to_uint8(to_tensor(list(pixels))), pixels)


@pytest.mark.parametrize("size", EXTREME)
def test_no_picture_grows_monstrous_on_the_way_to_its_crop(size: tuple[int, int]) -> None:
    """A column of 1 x 12,000 pixels at 512 would have 3.1 thousand million pixels, 12 GB."""
    with largest_resize() as seen:
        cropped = center_crop(Image.new("RGB", size, (10, 20, 30)), 512)
    assert cropped.size == (512, 512)
    assert cropped.getextrema() == ((10, 10), (20, 20), (30, 30))
    assert max(seen) <= MOST_PIXELS


def test_the_crop_of_a_monstrous_picture_is_its_middle() -> None:
    """12,000 rows whose grey is 0 above the middle and 200 below it: so is the square's."""
    rows = np.repeat(np.array([0, 200], np.uint8), 6000)
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None, None], (12_000, 1, 3))))
    scaled = scale_to(picture, 512)
    assert (scaled.size, scaled.is_monstrous) == ((512, 6_144_000), True)
    assert middle(scaled, 512) == (0, 3_071_744, 512, 3_072_256)
    column = np.asarray(center_crop(picture, 512))[:, 0, 0].astype(int)
    assert (column[0], column[511]) == (0, 200)  # the square reaches from the middle of one row to that of the next
    assert (column[255] + column[256]) / 2 == 100
    assert np.abs(column + column[::-1] - 200).max() <= 1


def test_an_ordinary_picture_is_scaled_as_a_whole_and_then_cut() -> None:
    """ADM's own three lines: stored codes depend on these bytes."""
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (600, 1500, 3), np.uint8))
    halved = picture.resize((750, 300), Image.Resampling.BOX)
    whole = halved.resize((round(750 * (160 / 300)), 160), Image.Resampling.BICUBIC)
    left = (whole.width - 160) // 2
    assert center_crop(picture, 160).tobytes() == whole.crop((left, 0, left + 160, 160)).tobytes()
