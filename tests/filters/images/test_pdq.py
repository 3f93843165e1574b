"""PDQ, bit for bit as the reference code computes it: its vectors here, and the code itself where it is installed."""

import io

import numpy as np
import pytest
from PIL import Image

from filters.images.decode import ImageLimits, store
from filters.images.pdq import SIDE, pdq, pdq_of, pdq_of_jpeg
from tests.support.small_web import jpeg, picture

VECTORS = {
    (400, 300): "e010634f27fb477fe71be00ee415e331e6e477e767f40318211b604e214ad6b5",
    (64, 64): "6010676f07fb477f671be30ae415e311e6e477e7e7f44318011b604e214ad6b5",  # taken as it is, not filtered
    (257, 131): "611767e727ee67f7671b6008f411e790f6e475f7673c0318211b604e214a56b5",
}
"""Size of `picture(1)` -> what pdqhash 0.2.8, Meta's C++ code, says of it."""


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Return noise whose detail falls off with its frequency, as that of photographs does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    grey = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency**1.2, s=(height, width))
    scaled = np.clip(128 + 50 * grey / grey.std(), 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([scaled, scaled // 2, 255 - scaled], axis=2))


@pytest.mark.parametrize("size", VECTORS)
def test_vectors_of_the_reference_code(size: tuple[int, int]) -> None:
    assert pdq(picture(1, *size)) == VECTORS[size]


def test_random_sizes_against_the_reference_code() -> None:
    compute = pytest.importorskip("pdqhash").compute
    sizes = np.random.default_rng(0).integers(70, 900, (12, 2)).tolist()
    for seed, (width, height) in enumerate(sizes):
        image = photograph(seed, width, height)
        assert pdq(image) == np.packbits(compute(np.asarray(image))[0]).tobytes().hex()


def test_half_of_the_bits_are_set_and_tiny_pictures_have_none() -> None:
    assert int(pdq(photograph(5, 300, 200)), 16).bit_count() == 128
    assert pdq(picture(1, 300, 4)) == "00" * 32


@pytest.mark.parametrize("store_side", [None, 512, 282, 71])
def test_a_picture_keeps_its_hash_however_small_it_is_stored(store_side: int | None) -> None:
    """Lists are matched within 31 bits: what is stored must not use them up."""
    whole = photograph(2, 1024, 768)
    received = jpeg(whole, quality=85)
    limits = ImageLimits(store_side=store_side)
    found = pdq_of(store(received, limits), received, limits)
    assert bits_apart(found, pdq(whole)) <= 10
    assert bits_apart(found, pdq(photograph(3, 1024, 768))) > 90


def test_a_stored_jpeg_is_read_at_the_least_size_that_will_do() -> None:
    stored = jpeg(photograph(4, 1100, 600), quality=95)
    half = Image.open(io.BytesIO(stored))
    half.draft("RGB", (550, 300))
    assert min(half.size) == 300 >= SIDE
    assert pdq_of_jpeg(stored) == pdq(half.convert("RGB"))
