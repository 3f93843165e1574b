"""Hash a picture with PDQ, the perceptual hash of 256 bits that safety lists exchange.

The algorithm is that of "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (Meta, 2019):
luminance, two passes of a box filter along each axis, 64 x 64 samples, the 16 x 16 lowest frequencies but the constant
ones, a bit where one is above their median. All before the median is linear, so the passes and the sampling are one
sparse matrix for each axis, and only the samples that count are computed: in a fifth of the time of the package
`pdqhash`, which filters every pixel, and without the compiler that this needs. The tests hold it against that package.
"""

import io
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.images.decode import HASHED_SIDE, ImageLimits, Stored, open_picture_at

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

Array = np.ndarray[Any, np.dtype[Any]]
BITS = 256
SAMPLES, KEPT = 64, 16
WINDOWS = 2 * SAMPLES
"""Windows of the box filter that lie beside one another along a side."""
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
LEAST = 5
"""Pixels of a side below which there is no hash: all of its bits are 0."""
SIDE = HASHED_SIDE
"""Pixels of the short side at which a picture is decoded at least, where it has them: of photographs less than a bit of
256 then differs in the mean from the hash at full size, at half of that 12."""
KNOWN_SIDES = 4096
"""Lengths of sides of which the matrix is remembered, 7 KB each at 512 pixels."""


def pdq(image: "Image") -> str:
    """Return the PDQ hash of a picture in mode RGB, 64 hex digits, the highest bit first."""
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    if min(height, width) < LEAST:
        return "0" * (BITS // 4)
    rows = _sampler(height, height == width == SAMPLES) @ pixels.reshape(height, 3 * width).astype(np.float32)
    grey = rows.reshape(SAMPLES, width, 3) @ LUMINANCE
    samples = (_sampler(width, height == width == SAMPLES) @ grey.T).T
    return _bits(samples).tobytes().hex()


def pdq_of(stored: Stored, received: bytes, limits: ImageLimits) -> str:
    """Return the PDQ hash of a picture that has passed the image gate, decoded at a short side of SIDE pixels or more.

    Where that much of it is stored it is hashed as it was encoded, or the stored JPEG is read; else what was received.
    """
    short = min(stored.width, stored.height)
    if short < SIDE and short < min(stored.original_width, stored.original_height):
        return pdq(open_picture_at(received, limits, SIDE))
    return pdq_of_jpeg(stored.jpeg) if stored.picture is None else pdq(stored.picture)


def pdq_of_jpeg(jpeg: bytes) -> str:
    """Return the PDQ hash of a stored picture: an upright sRGB JPEG that has passed the image gate."""
    from PIL import JpegImagePlugin

    with JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg)) as picture:
        scale = SIDE / min(picture.size)
        picture.draft("RGB", (round(picture.width * scale), round(picture.height * scale)))
        return pdq(picture.convert("RGB"))


def _bits(samples: Array) -> Array:
    """Return the bits of 64 x 64 samples of luminance, (32,) uint8."""
    low = _cosines() @ samples.astype(np.float64) @ _cosines().T
    median = np.partition(low.reshape(-1), BITS // 2 - 1)[BITS // 2 - 1]  # of an even number the lower one
    return np.packbits(low.reshape(-1)[::-1] > median)


@lru_cache(maxsize=1)
def _cosines() -> Array:
    """Return the basis (16, 64) of frequencies 1 to 16; its scale does not count."""
    angles = np.outer(np.arange(1, KEPT + 1), 2 * np.arange(SAMPLES) + 1)
    basis: Array = np.cos(math.pi / (2 * SAMPLES) * angles)
    return basis


@lru_cache(maxsize=KNOWN_SIDES)
def _sampler(side: int, as_it_is: bool) -> "csr_array":
    """Return the matrix (64, side) that filters a side twice and takes its samples; a picture of 64 x 64 is taken as it
    is."""
    from scipy.sparse import csr_array

    centres = ((np.arange(SAMPLES) + 0.5) * side / SAMPLES).astype(np.int64)
    taken = csr_array((np.ones(SAMPLES), (np.arange(SAMPLES), centres)), (SAMPLES, side))
    if as_it_is:
        return taken.astype(np.float32)
    window = -(-side // WINDOWS)
    ahead = (window + 2) // 2
    first = np.maximum(np.arange(side) - (window - ahead), 0)
    last = np.minimum(np.arange(side) + ahead, side)
    counts = last - first
    row = np.repeat(np.arange(side), counts)
    column = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    box = csr_array((np.repeat(1 / counts, counts), (row, column)), (side, side))
    return (taken @ box @ box).astype(np.float32)
