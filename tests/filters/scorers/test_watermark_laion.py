"""LAION's watermark detector: its published form, wrapped or not, and its preprocessing."""

import numpy as np
import pytest
import torch
from PIL import Image

from filters.scorers.base import Compute
from filters.scorers.stand_in import seeded
from filters.scorers.watermark_laion import STAND_IN_GAIN, WatermarkLaion, build_detector, load_detector, pixels
from manifests.weights import WeightsError
from tests.support.small_web import picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def state():
    return seeded(build_detector().state_dict(), "test", STAND_IN_GAIN)


def test_the_published_form(state):
    assert [tuple(state[f"classifier.{layer}.weight"].shape) for layer in (0, 3, 5)] == [
        (625, 1536),
        (256, 625),
        (2, 256),
    ]
    assert sum(value.numel() for key, value in state.items() if key.startswith("classifier.")) == 1_121_395
    assert {"conv_stem.weight", "bn1.weight", "conv_head.weight", "bn2.weight"} <= state.keys()


def test_both_published_wrappings_give_the_probability_of_class_0(state, tmp_path):
    paths = [tmp_path / "raw.pt", tmp_path / "wrapped.pt"]
    torch.save(state, paths[0])
    torch.save({"weights": state, "step": 3}, paths[1])
    images = [picture(n, 120, 80) for n in range(3)]
    raw, wrapped = (WatermarkLaion(str(path), Compute(2)).encode(images, {})["pwatermark"] for path in paths)
    assert raw.tobytes() == wrapped.tobytes()
    with torch.inference_mode():
        logits = load_detector(str(paths[0]))(torch.stack([pixels(image) for image in images]))
    np.testing.assert_allclose(raw, logits.softmax(1)[:, 0].numpy(), atol=1e-5)


def test_the_picture_is_squeezed_into_a_square():
    seen = pixels(Image.new("RGB", (300, 100), (255, 0, 0)))
    assert seen.shape == (3, 256, 256)
    np.testing.assert_allclose(seen[:, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)


def test_weights_of_another_form_are_refused(state, tmp_path):
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match=r"no 'classifier.0.bias'"):
        load_detector(str(tmp_path / "bare.pt"))
