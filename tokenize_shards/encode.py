"""Encode pictures into VQ codes so that a picture's codes never depend on its neighbours."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from tokenize_shards.images import center_crop, to_tensor
from tokenize_shards.vq import LoadedVQ

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
"""fp32 is exact; tf32 is what LlamaGen's extraction uses and differs on CUDA alone; bf16 is autocast in the encoder."""


class Encoder:
    """A loaded tokenizer, ready to encode; on a GPU where torch sees one, unless `device` says otherwise."""

    def __init__(self, loaded: LoadedVQ, precision: Precision = "fp32", device: str = "auto") -> None:
        """Move the tokenizer to its device. Raises ValueError for an unknown precision."""
        import torch

        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is not known; the choices are: {', '.join(PRECISIONS)}")
        self.precision: Precision = precision
        self.weights, self.fingerprint = loaded.weights, loaded.fingerprint
        self._device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._vq = loaded.vq.to(self._device).eval()

    def encode_images(self, images: Sequence[Image.Image], size: int, batch_size: int) -> np.ndarray:
        """Return the codes of the pictures' centre crops, uint16 (n, 1 crop, N), raster order.

        On a GPU every batch has `batch_size` pictures, the last one filled up with grey. On a CPU pictures go one by one: batches
        are no faster there, and their size moves latents by about 3e-6, enough to turn a code. Raises ValueError where `size` does
        not fit the tokenizer or `batch_size` is below 1.
        """
        step = self._vq.spec.downsampling
        if size < step or size % step or batch_size < 1:
            raise ValueError(f"{self._vq.spec.name}: got size {size} and batch {batch_size}, wanted a multiple of {step} and at least 1")
        at_once = 1 if self._device.type == "cpu" else batch_size
        codes_nN = np.empty((len(images), (size // step) ** 2), np.uint16)
        for start in range(0, len(images), at_once):
            crops = [center_crop(image.convert("RGB"), size) for image in images[start : start + at_once]]
            codes_nN[start : start + len(crops)] = self._codes(crops, at_once)
        return codes_nN[:, None, :]

    def _codes(self, crops: list[Image.Image], at_once: int) -> np.ndarray:
        import torch

        x_BCHW = torch.zeros(at_once, 3, crops[0].height, crops[0].width)
        x_BCHW[: len(crops)] = to_tensor(crops)
        with torch.inference_mode(), _arithmetic(self.precision):
            codes_BN = self._encode(x_BCHW.to(self._device))
        return codes_BN[: len(crops)].cpu().numpy().astype(np.uint16)

    def _encode(self, x_BCHW: "Tensor") -> "Tensor":
        import torch

        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            z_BDhw = self._vq.latents(x_BCHW)
        z_PD = z_BDhw.float().permute(0, 2, 3, 1).flatten(0, 2)  # the comparison itself is always float32
        return self._vq.quantize.nearest(z_PD).view(len(x_BCHW), -1)


@contextlib.contextmanager
def _arithmetic(precision: Precision) -> Iterator[None]:
    """Set what CUDA makes of float32 convolutions and products (torch's own default for convolutions is TF32), and put it back."""
    from torch import backends

    places = (backends.cudnn.conv, backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    chosen_before = backends.cudnn.deterministic, backends.cudnn.benchmark
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        backends.cudnn.deterministic, backends.cudnn.benchmark = True, False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
        backends.cudnn.deterministic, backends.cudnn.benchmark = chosen_before
