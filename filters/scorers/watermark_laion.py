"""Score watermarks with LAION's detector: an EfficientNet-B3 with a three-layer head."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.scorers.base import Compute, Encoded, Texts, device_of, load_exactly, read_state, run_padded
from filters.scorers.stand_in import seeded
from manifests.extras import need
from manifests.weights import STAND_IN

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SIDE = 256
"""Pixels; the picture is squeezed into a square (LAION-5B-WatermarkDetection, example_use.py)."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, RGB, of values in 0..1."""
WATERMARK = 0
"""Index of the class 'watermark'; 1 is 'clear'."""
STAND_IN_GAIN = 1.48
"""Deviation of the stand-in's matrices at which signals neither die out nor explode on their way through the layers."""


@dataclass
class WatermarkLaion:
    """The encoder `watermark_laion`."""

    name = "watermark_laion"

    preprocessing = f"{SIDE} x {SIDE} px bilinear, aspect not kept, ImageNet mean and deviation"

    weights: str
    compute: Compute

    def __post_init__(self) -> None:
        import torch

        self.device = device_of()
        self.model = load_detector(self.weights).to(self.device)
        if self.device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return `pwatermark`: (N,) float32, probability of a watermark."""
        rows = [pixels(image) for image in images]
        marked = run_padded(self.model, rows, self.compute, lambda logits: logits.softmax(dim=1)[:, WATERMARK])
        return {"pwatermark": marked}


def pixels(image: "Image") -> "torch.Tensor":
    """Return an RGB picture as the detector sees it: (3, 256, 256), normalised, aspect not kept."""
    import torch
    from PIL import Image

    squeezed = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    return torch.from_numpy((squeezed - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).permute(2, 0, 1)


def load_detector(weights: str) -> Any:
    """Return the detector in eval mode. The file is a state dict, or holds one under 'weights'. Raises WeightsError for
    another form."""
    if weights == STAND_IN:
        return _load_stand_in()
    state = read_state(weights, "watermark_laion")
    model = build_detector()
    load_exactly(model, state["weights"] if isinstance(state.get("weights"), dict) else state, "watermark_laion")
    return model.eval()


def build_detector() -> Any:
    """Return the published architecture: timm's EfficientNet-B3, its last layer replaced by 625, 256 and 2 units."""
    from torch.nn import Dropout, Linear, ReLU, Sequential

    timm = need("timm", "score")
    model = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    model.classifier = Sequential(
        Linear(model.num_features, 625), ReLU(), Dropout(0.3), Linear(625, 256), ReLU(), Linear(256, 2)
    )
    return model


def _load_stand_in() -> Any:
    """Write a detector with seeded weights as a file, and load it as any other."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watermark.pt"
        torch.save(seeded(build_detector().state_dict(), "watermark_laion", STAND_IN_GAIN), path)
        return load_detector(str(path))
