"""The t5 step says how much room its features take, and how many tokens a row has at most."""

from manifests.tables import FEATURES
from pipeline.steps.t5 import estimate
from tokenize_shards.text import MAX_TOKENS


def test_the_estimate_says_what_padding_would_take():
    line = estimate({40: 50}, 2048)  # 12 tokens each: 50 x 12 x 2048 x 2 bytes; padded ten times that
    assert "50 captions will take about 2.46 MB (24.58 MB if padded to 120 tokens" in line
    assert "24.6 TB" in line


def test_the_schema_says_the_most_tokens_there_are():
    assert str(MAX_TOKENS).encode() in FEATURES.field("tokens").metadata[b"says"]
