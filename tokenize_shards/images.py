"""Bring pictures to the tokenizer's shape and back: ADM centre crop, tensors in [-1, 1], bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from filters.images.scaled import Box, Scaled

if TYPE_CHECKING:
    from torch import Tensor


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle square, `size` pixels a side, of a picture scaled so that its short side fits.

    The crop of ADM (guided-diffusion, arXiv 2105.05233), which LlamaGen uses: halve with a box filter while the short
    side is at least twice `size`, bring it to `size` with a bicubic filter, then cut; an odd pixel is left on the right
    and below. Of a picture that would grow monstrous on the way only the square is scaled (filters/images/scaled.py):
    the same pixels, to a level of 255. Raises ValueError for a size below 1.
    """
    scaled = scale_to(image, size)
    return scaled.crop(middle(scaled, size))


def scale_to(image: Image.Image, side: int) -> Scaled:
    """Return the picture with a short side of `side` pixels, scaled as ADM does, to cut boxes from. Raises ValueError
    for a side below 1."""
    if side < 1:
        raise ValueError(f"center_crop: size {side}, wanted at least 1 pixel")
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    return Scaled(image, (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def middle(scaled: Scaled, size: int) -> Box:
    """Return the box (left, top, right, bottom) of ADM's middle square; an odd pixel is left on the right and below."""
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    return left, top, left + size, top + size


def to_tensor(images: Sequence[Image.Image | np.ndarray]) -> "Tensor":
    """Return RGB pictures of one size, PIL or uint8 (H, W, 3), as float32 (B, 3, H, W) in [-1, 1]. Raises ValueError
    for anything else."""
    import torch

    arrays = [np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image) for image in images]
    if not arrays or any(
        array.shape != arrays[0].shape or array.dtype != np.uint8 or array.shape[2:] != (3,) for array in arrays
    ):
        raise ValueError(
            "to_tensor: wanted RGB pictures of one size, got"
            f" {sorted({(*array.shape, str(array.dtype)) for array in arrays})}"
        )
    x_BHWC = torch.from_numpy(np.stack(arrays))
    return x_BHWC.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


def to_uint8(x_BCHW: "Tensor") -> np.ndarray:
    """Return pictures in [-1, 1] as uint8 (B, H, W, 3): 127.5 x + 128 cut to 0..255 and truncated, as LlamaGen does."""
    import torch

    pixels_BHWC = (127.5 * x_BCHW.detach().float() + 128.0).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return np.ascontiguousarray(pixels_BHWC.cpu().numpy())
