"""The ten crops are torchvision's of the ADM crop, and their recorded boxes find the pixels again."""

import numpy as np
import pytest
from PIL import Image

from filters.images.scaled import MOST_PIXELS
from tests.support.resizes import EXTREME, largest_resize
from tokenize_shards.crops import CropPlan, crops_of
from tokenize_shards.images import center_crop


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("scale", [1.05, 1.1, 1.0])
@pytest.mark.parametrize("shape", [(90, 70), (70, 91), (200, 64), (64, 64)])
def test_ten_crops_are_torchvisions_of_the_adm_crop(scale: float, shape: tuple[int, int]) -> None:
    from torchvision.transforms import TenCrop

    image, size = picture(*shape), 32
    wanted = TenCrop(size)(center_crop(image, int(size * scale)))
    got = list(crops_of(image, size, CropPlan("ten", (scale,))))
    assert len(got) == 10
    for (crop, pixels), reference in zip(got, wanted, strict=True):
        assert np.array_equal(np.asarray(pixels), np.asarray(reference)), crop


def test_the_recorded_box_finds_the_pixels_again() -> None:
    image = picture(97, 75)
    for plan in (CropPlan("ten", (1.05, 1.1)), CropPlan("center", flip=True)):
        found = list(crops_of(image, 40, plan))
        assert len(found) == plan.count
        for crop, pixels in found:
            scaled = image.resize(crop.scaled, Image.Resampling.BICUBIC)  # 75 is below 2 x 40: no halving
            again = scaled.crop(crop.box)
            again = again.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else again
            assert np.array_equal(np.asarray(again), np.asarray(pixels))


def test_the_boxes_of_a_square_by_hand() -> None:
    # 10 x 10 pixels, crops of 8 at scale 1.25: the square is the whole picture, 2 pixels to spare.
    notes = [crop.note() for crop, _ in crops_of(picture(10, 10), 8, CropPlan("ten", (1.25,)))]
    assert [note["box"][:2] for note in notes] == [
        [0, 0],
        [2, 0],
        [0, 2],
        [2, 2],
        [1, 1],
        [2, 0],
        [0, 0],
        [2, 2],
        [0, 2],
        [1, 1],
    ]
    assert [note["flip"] for note in notes] == [False] * 5 + [True] * 5
    assert [note["place"] for note in notes][5:7] == ["top_right", "top_left"]


def test_plans_name_themselves() -> None:
    plans = CropPlan(), CropPlan(flip=True), CropPlan("ten", (1.05, 1.1))
    assert [plan.label for plan in plans] == [
        "center",
        "center+flip",
        "ten_1.05+ten_1.1",
    ]
    assert [plan.count for plan in plans] == [1, 2, 20]


@pytest.mark.parametrize("size", EXTREME)
def test_ten_crops_of_an_extreme_picture_are_made_one_by_one(size: tuple[int, int]) -> None:
    with largest_resize() as seen:
        found = list(crops_of(Image.new("RGB", size, (10, 20, 30)), 256, CropPlan("ten", (1.05, 1.1))))
    assert [pixels.size for _, pixels in found] == [(256, 256)] * 20
    assert max(seen) <= MOST_PIXELS
    side = int(256 * 1.05)
    assert min(found[0][0].scaled) == side
    assert max(found[0][0].scaled) == round(max(size) * side / min(size))
