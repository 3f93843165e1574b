"""Agreement counts equal codes of fixed pictures, and too little of it is refused for real weights alone."""

import hashlib

import numpy as np
import pytest

from manifests.weights import STAND_IN
from tokenize_shards.agreement import Agreement, PrecisionError, check, fixed_pictures, measure
from tokenize_shards.encode import Encoder
from tokenize_shards.vq import load_vq


def test_the_fixed_pictures_are_fixed():
    pictures = fixed_pictures(64)
    assert [picture.size for picture in pictures] == [(64, 64)] * 8
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    assert digest.startswith("91b6997db2e47767")
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_agreement_counts_equal_codes():
    loaded = load_vq("VQ-demo", STAND_IN)
    exact, rough = Encoder(loaded, "fp32", "cpu"), Encoder(loaded, "bf16", "cpu")
    assert measure(loaded, exact, 32, 8) == Agreement("fp32", 1.0, 8 * 16)
    assert measure(loaded, Encoder(loaded, "tf32", "cpu"), 32, 8) == Agreement("tf32", 1.0, 8 * 16)
    found = measure(loaded, rough, 32, 8)
    pictures = fixed_pictures(32)
    same = rough.encode_images(pictures, 32, 8) == exact.encode_images(pictures, 32, 8)
    assert found.share == np.mean(same)
    assert 0.5 < found.share < 1.0


def test_too_little_agreement_is_refused_for_real_weights_alone():
    low = Agreement("bf16", 0.982, 8192)
    check(low, 0.99, stand_in=True)
    check(low, 0.982, stand_in=False)
    with pytest.raises(
        PrecisionError, match=r"98\.20% of 8,192 codes are float32's, wanted pretokenize\.min_agreement = 99\.00%"
    ):
        check(low, 0.99, stand_in=False)
    for precision, nearer in (
        ("bf16", "precision 'tf32' or 'fp32'"),
        ("tf32", "precision 'fp32'"),
        ("fp32", "fused = false"),
    ):
        with pytest.raises(PrecisionError, match=f"take {nearer}, or lower"):
            check(Agreement(precision, 0.5, 64), 0.99, stand_in=False)
