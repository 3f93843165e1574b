import numpy as np
import pytest

from manifests.tables import FEATURES
from pipeline.steps.t5 import estimate
from tokenize_shards.samples import pack_numbers, unpack_numbers
from tokenize_shards.text import MAX_TOKENS


def test_numbers_of_sixteen_bits_round_to_nearest():
    x = np.array([[1.0, -2.5, 3.140625, 1 + 2**-8, 1 + 2**-7, 65000.0]], np.float32)
    assert pack_numbers(x, "fp16").dtype == np.float16
    packed = pack_numbers(x, "bf16")
    assert packed.dtype == np.uint16
    assert packed.tolist() == [[0x3F80, 0xC020, 0x4049, 0x3F80, 0x3F81, 0x477E]]  # 1 + 2^-8 is half way: to even
    assert unpack_numbers(packed).tolist() == [[1.0, -2.5, 3.140625, 1.0, 1 + 2**-7, 65024.0]]
    assert unpack_numbers(pack_numbers(x, "fp16"))[0, :3].tolist() == [1.0, -2.5, 3.140625]


def test_bf16_equals_torchs():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    assert np.array_equal(unpack_numbers(pack_numbers(x, "bf16")), torch.from_numpy(x).bfloat16().float().numpy())


def test_the_estimate_says_what_padding_would_take():
    line = estimate({40: 50}, 2048)  # 12 tokens each: 50 x 12 x 2048 x 2 bytes; padded ten times that
    assert "50 captions will take about 2.46 MB (24.58 MB if padded to 120 tokens" in line
    assert "24.6 TB" in line


def test_the_schema_says_the_most_tokens_there_are():
    assert str(MAX_TOKENS).encode() in FEATURES.field("tokens").metadata[b"says"]
