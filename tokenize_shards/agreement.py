"""Measure how many codes a faster arithmetic leaves as float32 has them, and refuse one that changes too many."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from manifests.weights import WeightsError
from tokenize_shards.encode import Encoder
from tokenize_shards.vq import LoadedVQ

PICTURES = 8
NEARER = {"bf16": "precision 'tf32' or 'fp32'", "tf32": "precision 'fp32'", "fp32": "fused = false"}
"""What is nearer to plain float32 than each precision; float32 differs from it where it is compiled."""
LEAVES = 400
"""Discs in a picture: enough to cover it several times."""


class PrecisionError(WeightsError):
    """The chosen arithmetic gives too many codes that float32 does not."""


@dataclass(frozen=True)
class Agreement:
    """The share of codes equal to float32's over a fixed set of pictures, 0..1, and over how many codes."""

    precision: str
    share: float
    codes: int


def measure(loaded: LoadedVQ, encoder: Encoder, size: int, batch_size: int) -> Agreement:
    """Encode the fixed pictures with `encoder` and in float32 on the same device, and count equal codes.

    Plain float32 is what is compared with: it agrees with itself, and nothing is encoded.
    """
    if encoder.exact:
        return Agreement(encoder.precision, 1.0, PICTURES * (size // encoder.spec.downsampling) ** 2)
    pictures = fixed_pictures(size)
    got_MN = encoder.encode_images(pictures, size, batch_size)
    wanted_MN = Encoder(loaded, "fp32", str(encoder.device)).encode_images(pictures, size, batch_size)
    return Agreement(encoder.precision, float((got_MN == wanted_MN).mean()), got_MN.size)


def check(agreement: Agreement, least: float, *, stand_in: bool) -> None:
    """Raise PrecisionError below the recipe's limit; stand-ins, whose codes lie much closer together, are only
    reported."""
    if agreement.share < least and not stand_in:
        raise PrecisionError(
            f"pretokenize.precision = {agreement.precision!r}: {agreement.share:.2%} of {agreement.codes:,} codes are"
            f" float32's, wanted pretokenize.min_agreement = {least:.2%}; take {NEARER[agreement.precision]}, or lower"
            " the limit"
        )


@lru_cache(maxsize=4)
def fixed_pictures(size: int) -> tuple[Image.Image, ...]:
    """Return the same eight pictures for ever, `size` pixels a side: discs of one colour that hide one another.

    Such "dead leaves" have the edges, flat regions and power spectrum of photographs (Lee, Mumford and Huang 2001).
    """
    return tuple(_leaves(size, number) for number in range(PICTURES))


def _leaves(size: int, number: int) -> Image.Image:
    draws = np.random.default_rng(number).random((LEAVES, 6))
    # Radii follow r^-3 between 1/100 and 1/2 of the side, so that the picture looks alike at every scale.
    radii = size / np.sqrt(4.0 + draws[:, 0] * (1e4 - 4.0))
    image = Image.new("RGB", (size, size), (128, 128, 128))
    pen = ImageDraw.Draw(image)
    for (_, x, y, red, green, blue), r in zip(draws, radii, strict=True):
        box = (x * size - r, y * size - r, x * size + r, y * size + r)
        pen.ellipse(box, fill=(int(256 * red), int(256 * green), int(256 * blue)))
    return image
