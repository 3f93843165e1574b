"""Before the first step: which captions there are, and what samples without the wanted ones are trained on."""

from copy import copy

import pytest

from manifests.shards import write_shard
from pipeline.training import caption_sources
from pipeline.training.caption_sources import check_sources
from tests.support.code_shards import row_of, tokenizer
from tokenize_shards.packed_index import open_packed_index
from tokenize_shards.samples import LoaderError, sample_parts


def written(tmp_path, texts, shards=1):
    """Write samples whose alt text is each of these (None: none) and whose llava caption is "long N"; return their
    index."""
    for number in range(shards):
        rows = [{**row_of(n), "text": text} for n, text in list(enumerate(texts))[number::shards]]
        samples = [(row["uid"].hex(), sample_parts(row, "pretrain", tokenizer(), "p")) for row in rows]
        write_shard(tmp_path / "codes" / "pretrain" / f"{number:05d}.tar", samples, index=True)
    return open_packed_index(tmp_path / "codes" / "pretrain")


def test_a_source_that_no_sample_has_is_refused_with_those_that_there_are(tmp_path):
    index = written(tmp_path, ["a", "b", None])
    says = (
        r"train\.captions: no sample has a caption from 'lava'; the sources that there are: alt \(2 of 3\), llava \(3"
        r" of 3\), llava_fit \(3 of 3\), llava_short \(3 of 3\), recaption \(3 of 3\), recaption_short \(3 of 3\)"
    )
    with pytest.raises(LoaderError, match=says):
        check_sources(index, {"alt": 1.0, "lava": 1.0})
    assert check_sources(index, {"llava": 1.0, "lava": 0.0}) is None


def test_samples_without_a_wanted_caption_are_counted(tmp_path):
    index = written(tmp_path, ["a", "b", None, "  "])
    assert check_sources(index, {"alt": 1.0, "llava": 0.5}) is None
    assert check_sources(index, {"alt": 1.0}) == (
        "captions: 2 of all 4 samples have none from alt: 2 are trained on another source's, 0 on an empty one"
    )


def test_streamed_samples_are_counted_until_there_are_enough_and_each_source_was_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_sources, "ENOUGH", 3)
    index = written(tmp_path, ["a", None, "c", None, "e", "f"], shards=2)  # a, c, e and none, none, f
    assert check_sources(index, {"llava": 1.0}) is None
    backwards = copy(index)
    backwards.shards = index.shards[::-1]
    assert check_sources(backwards, {"alt": 1.0}) == (
        "captions: 2 of the first 3 samples have none from alt: 2 are trained on another source's, 0 on an empty one"
    )
    monkeypatch.setattr(caption_sources, "ENOUGH", 1)
    assert "of the first 3 samples" in check_sources(backwards, {"alt": 1.0})  # the first two have no alt
