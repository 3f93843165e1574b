"""Boxes of a scaled picture: the same pixels whether the whole is scaled or only what lies under the box."""

import numpy as np
import pytest
from PIL import Image

import filters.images.scaled as scaled_module
from filters.images.scaled import MOST_PIXELS, Scaled, is_monstrous, middle_of_short_side
from tests.support.resizes import largest_resize


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_what_is_monstrous_by_hand() -> None:
    assert MOST_PIXELS == 16_777_216
    assert not is_monstrous((4000, 3000), (683, 512))
    assert is_monstrous((1, 12_000), (512, 6_144_000))
    assert is_monstrous((12_000, 1), (6_144_000, 512))
    assert not is_monstrous((20_000, 5_000), (16_000, 4_000))  # fewer than the picture itself has
    assert is_monstrous((300, 100_000), (330, 60_000))  # 330 x 100,000 stand between the two passes


@pytest.mark.parametrize("filter_", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((1, 300), (64, 19_200)),
        ((300, 1), (19_200, 64)),
        ((7, 901), (32, 4119)),
        ((90, 700), (32, 249)),
        ((50, 60), (50, 60)),
    ],
)
def test_a_box_made_alone_equals_the_box_of_the_whole(
    size: tuple[int, int], scaled: tuple[int, int], filter_: Image.Resampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(*size)
    w, h = scaled
    side = min(scaled)
    boxes = [
        (0, 0, side, side),
        (w - side, h - side, w, h),
        ((w - side) // 2, (h - side) // 2, (w + side) // 2, (h + side) // 2),
        (w // 3, h // 3, w // 3 + side // 2, h // 3 + side // 2),
    ]
    whole = [np.asarray(Scaled(picture, scaled, filter_).crop(box)).astype(int) for box in boxes]
    monkeypatch.setattr(scaled_module, "is_monstrous", lambda size, scaled: True)
    for box, expected in zip(boxes, whole, strict=True):
        alone = np.asarray(Scaled(picture, scaled, filter_).crop(box)).astype(int)
        assert alone.shape == expected.shape
        assert np.abs(alone - expected).max() <= 1


def test_the_whole_is_scaled_once_for_all_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = Scaled(noise(40, 30), (80, 60))
    with largest_resize() as seen:
        for left in range(4):
            scaled.crop((left, 0, left + 8, 8))
    assert seen == [80 * 60]
    assert (scaled.width, scaled.height, scaled.is_monstrous) == (80, 60, False)


@pytest.mark.parametrize(("short", "crop"), [(32, 32), (37, 32)])
@pytest.mark.parametrize("size", [(3, 901), (900, 4), (1, 500), (33, 32)])
def test_a_models_own_preprocessing_sees_the_same_middle(
    size: tuple[int, int], short: int, crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    own = Compose([Resize(short, InterpolationMode.BICUBIC), CenterCrop(crop)])
    picture = noise(*size)
    expected = np.asarray(own(picture)).astype(int)
    assert middle_of_short_side(picture, short, crop, Image.Resampling.BICUBIC) is picture
    monkeypatch.setattr(scaled_module, "is_monstrous", lambda size, scaled: True)
    middle = middle_of_short_side(picture, short, crop, Image.Resampling.BICUBIC)
    assert middle.size == (short, short)
    assert np.abs(np.asarray(own(middle)).astype(int) - expected).max() <= 1
