"""An epoch has each picture once, in an order that depends on no process count and that resumes anywhere."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from manifests.shards import read_shard, write_shard
from pipeline.training.loader import Limits, MemoryPictures, Share, StreamedPictures, chooser, open_pictures
from tests.support.code_shards import GRID, row_of, tokenizer, write_codes
from tests.support.npy_files import npy
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.samples import (
    CodeSample,
    LoaderError,
    find_shards,
    read_samples,
    sample_parts,
)

IN_MEMORY, STREAMED = Limits(1 << 30, None, 0), Limits(0, None, 0)


def shards_of(tmp_path, *counts):
    write_codes(tmp_path, counts)
    return find_shards(tmp_path / "codes", "pretrain")


def read(pictures, first, steps):
    return [[(epoch, sample.uid) for epoch, sample in step] for step in islice(pictures.steps(first), steps)]


@pytest.mark.parametrize("limits", [IN_MEMORY, STREAMED], ids=["memory", "streamed"])
def test_each_epoch_has_each_picture_once_in_its_own_order_and_resumes_anywhere(tmp_path, limits):
    shards = shards_of(tmp_path, 5, 0, 7)
    pictures = open_pictures(shards, limits, Share(0, 1, 5))
    assert isinstance(pictures, MemoryPictures if limits is IN_MEMORY else StreamedPictures)
    steps = read(pictures, 0, 12)
    drawn = [pair for step in steps for pair in step]
    epochs = [drawn[start : start + 12] for start in range(0, 60, 12)]
    assert [{epoch for epoch, _ in part} for part in epochs] == [{0}, {1}, {2}, {3}, {4}]
    assert all(len({uid for _, uid in part}) == 12 for part in epochs)
    assert [uid for _, uid in epochs[0]] != [uid for _, uid in epochs[1]]
    for first in (1, 2, 3, 7, 11):  # inside an epoch, at its end, inside a shard
        assert read(open_pictures(shards, limits, Share(0, 1, 5)), first, 12 - first) == steps[first:]


@pytest.mark.parametrize("limits", [IN_MEMORY, STREAMED], ids=["memory", "streamed"])
def test_of_a_store_the_order_is_that_of_a_disk(tmp_path, limits, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    local = shards_of(tmp_path / "run", 5, 0, 7)
    stored = find_shards(upload(tmp_path / "run", memory_root()) / "codes", "pretrain")
    for first in (0, 3):
        assert read(open_pictures(stored, limits, Share(0, 1, 5)), first, 9) == read(
            open_pictures(local, limits, Share(0, 1, 5)), first, 9
        )
    stored[2].path.unlink()
    with pytest.raises(FileNotFoundError):
        read(open_pictures(stored, limits, Share(0, 1, 5)), 0, 3)


def test_in_memory_the_order_does_not_depend_on_the_number_of_processes(tmp_path):
    shards = shards_of(tmp_path, 5, 7)
    alone = read(open_pictures(shards, IN_MEMORY, Share(0, 1, 4)), 2, 5)
    two = [read(open_pictures(shards, IN_MEMORY, Share(rank, 2, 2)), 2, 5) for rank in (0, 1)]
    assert [first + second for first, second in zip(*two, strict=True)] == alone


def test_streamed_shards_are_shared_out(tmp_path):
    shards = shards_of(tmp_path, 4, 4, 4)
    two = [read(open_pictures(shards, STREAMED, Share(rank, 2, 4)), 0, count) for rank, count in ((0, 2), (1, 1))]
    assert {uid for step in [*two[0], *two[1]] for _, uid in step} == {row_of(n)["uid"].hex() for n in range(12)}
    with pytest.raises(LoaderError, match=r"3 shard.s. for 4 processes"):
        open_pictures(shards, STREAMED, Share(0, 4, 1))


def test_max_pictures_takes_the_same_ones_whatever_the_shards(tmp_path):
    first = open_pictures(shards_of(tmp_path / "a", 5, 7), Limits(1 << 30, 4, 1), Share())
    second = open_pictures(shards_of(tmp_path / "b", 12), Limits(0, 4, 1), Share())
    assert [s.uid for s in first.samples] == [s.uid for s in second.samples]
    assert len(first.samples) == 4
    larger = open_pictures(shards_of(tmp_path / "c", 12), Limits(0, 9, 1), Share())
    assert {s.uid for s in first.samples} < {s.uid for s in larger.samples}


def test_codes_of_another_tokenizer_are_refused(tmp_path):
    write_codes(tmp_path, (2,))
    (key, parts) = next(read_shard(tmp_path / "codes" / "pretrain" / "00000.tar"))
    note = json.loads(parts["json"])
    note["tokenizer"]["fingerprint"] = "f" * 64
    write_shard(
        tmp_path / "codes" / "pretrain" / "00001.tar", [(key, {**parts, "json": json.dumps(note).encode()})], index=True
    )
    shards = find_shards(tmp_path / "codes", "pretrain")
    for limits in (IN_MEMORY, STREAMED):
        with pytest.raises(LoaderError, match=r"00001\.tar, sample 0+: made by"):
            read(open_pictures(shards, limits, Share(0, 1, 3)), 0, 1)


def test_stored_features_belong_to_one_caption(tmp_path):
    parts = sample_parts(row_of(0), "pretrain", tokenizer(), "p")
    note = {**json.loads(parts["json"]), "t5": {"source": "llava"}}
    parts |= {"json": json.dumps(note).encode(), "t5.npy": npy(np.ones((3, 8), np.float16))}
    write_shard(tmp_path / "codes" / "pretrain" / "00000.tar", [("0" * 32, parts)], index=True)
    (shard,) = find_shards(tmp_path / "codes", "pretrain")
    (sample,) = read_samples(shard)
    assert chooser({"llava": 1.0}, 0)(0, sample).features.tolist() == np.ones((3, 8)).tolist()
    assert chooser({"alt": 1.0}, 0)(0, sample).features is None


def sample_with(number, captions, crops=1):
    codes = np.arange(crops, dtype=np.uint16)[:, None].repeat(GRID**2, 1)
    return CodeSample(f"{number:032x}", codes, captions, tokenizer(), 64)


def test_captions_and_crops_are_drawn_by_weight_and_epoch():
    captions = (("alt", "a"), ("llava", "b"), ("llava_short", "c"))
    choose = chooser({"llava": 0.7, "llava_short": 0.3}, 0)
    drawn = [choose(epoch, sample_with(number, captions, 10)) for epoch in range(4) for number in range(500)]
    share = {text: sum(example.caption == text for example in drawn) / 2000 for text in "abc"}
    assert share["a"] == 0
    assert share["c"] == pytest.approx(0.3, abs=0.03)
    crops = np.bincount([example.codes_N[0] for example in drawn], minlength=10) / 2000
    assert crops == pytest.approx([0.1] * 10, abs=0.03)
    again = [choose(epoch, sample_with(number, captions, 10)) for epoch in range(4) for number in range(500)]
    assert [(e.caption, e.codes_N[0]) for e in again] == [(e.caption, e.codes_N[0]) for e in drawn]


def test_a_sample_without_the_wanted_captions_uses_its_first_or_none():
    choose = chooser({"llava": 1.0}, 0)
    assert choose(0, sample_with(0, (("alt", "a"), ("top_caption", "t")))).caption == "a"
    assert choose(0, sample_with(0, ())).caption == ""


def test_recaptions_are_those_of_the_first_captioner_that_a_sample_has():
    said = (("qwen", "q"), ("llava", "l"), ("llava_short", "s"), ("llava_fit", "f"))
    by_name = {
        name: [
            chooser({name: 1.0}, 0)(0, sample_with(0, (("alt", "a"), *some))).caption for some in (said, said[1:], ())
        ]
        for name in ("recaption", "recaption_short", "llava_fit", "qwen_fit")
    }
    assert by_name == {
        "recaption": ["q", "l", "a"],
        "recaption_short": ["a", "s", "a"],
        "llava_fit": ["f", "f", "a"],
        "qwen_fit": ["q", "a", "a"],  # all of it fits
    }


def test_stored_features_serve_every_name_of_their_caption():
    sample = replace(sample_with(0, (("alt", "a"), ("llava", "l"))), features=np.ones((3, 8)), features_of="recaption")
    assert chooser({"llava": 1.0}, 0)(0, sample).features is not None
    assert chooser({"alt": 1.0}, 0)(0, sample).features is None


def test_an_empty_caption_is_not_drawn_where_another_has_words():
    choose = chooser({"alt": 1.0, "llava": 1.0}, seed=0)
    sample = sample_with(1, (("alt", " \n"), ("llava", "a cat"), ("top_caption", "t")))
    assert {choose(epoch, sample).caption for epoch in range(50)} == {"a cat"}
    assert choose(0, sample_with(1, (("alt", ""), ("top_caption", "t")))).caption == "t"
    assert choose(0, sample_with(1, (("alt", ""),))).caption == ""
