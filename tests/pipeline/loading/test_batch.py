"""A batch: crops and captions drawn by hash, members held against their CRC-32, ranges checked, faults named."""

import json

import numpy as np
import pytest

from manifests.shards import read_shard, write_shard
from pipeline.loading.batch import Expected, joined
from pipeline.loading.captions import Drawing
from pipeline.loading.loader import CodeSet, Reading
from pipeline.loading.selection import Selection
from pipeline.loading.window import Source
from tests.support.code_shards import row_of, tokenizer, write_codes
from tests.support.npy_files import npy
from tokenize_shards.packed_index import open_packed_index
from tokenize_shards.samples import LoaderError, npy_bytes, sample_parts


def code_set(tmp_path, weights=None, **expected):
    index = open_packed_index(tmp_path / "codes" / "pretrain")
    return CodeSet(
        Source(index, Selection()), Expected(tokenizer(), Drawing(weights or {"alt": 1.0}), 0, **expected), Reading()
    )


def write(tmp_path, parts):
    write_shard(tmp_path / "codes" / "pretrain" / "00000.tar", [("0" * 32, parts)], index=True)


def changed(**note):
    parts = sample_parts(row_of(0), "pretrain", tokenizer(), "p")
    return parts | {"json": json.dumps({**json.loads(parts["json"]), **note}).encode()}


def test_a_crop_and_a_caption_are_drawn_per_epoch_by_hash(tmp_path):
    write_codes(tmp_path, (300,), crops=5)
    codes = code_set(tmp_path, {"llava": 0.7, "llava_short": 0.3})
    batch = codes.batch(0, 1200)
    again = code_set(tmp_path, {"llava": 0.7, "llava_short": 0.3}).batch(600, 900)
    assert again.captions_B == batch.captions_B[600:900]
    assert np.array_equal(again.codes_BN, batch.codes_BN[600:900])
    assert batch.sources_B.count("llava_short") == pytest.approx(360, abs=60)
    crops = []
    for uid, codes_N in zip(batch.uids_B, batch.codes_BN, strict=True):
        codes_KN = np.array(row_of(int(uid, 16), 5)["codes"]).reshape(5, -1)
        crops += np.flatnonzero((codes_KN == codes_N).all(1)).tolist()
    assert np.bincount(crops).tolist() == pytest.approx([240] * 5, abs=60)


def test_stored_features_belong_to_one_caption(tmp_path):
    parts = changed(t5={"source": "llava"}) | {"t5.npy": npy(np.ones((3, 8), np.float16))}
    write(tmp_path, parts)
    assert code_set(tmp_path, {"llava": 1.0}).batch(0, 1).features_B[0].tolist() == np.ones((3, 8)).tolist()
    assert code_set(tmp_path, {"alt": 1.0}).batch(0, 1).features_B == [None]
    with pytest.raises(LoaderError, match=r"sample 0{32}: stored text features are 8 wide, train.cond_dim is 16"):
        code_set(tmp_path, {"llava": 1.0}, width=16).batch(0, 1)


FAULTS = [
    (changed(tokenizer={}), "made by {} with a grid of 8, the first sample of all by"),
    (changed(crops=[{}, {}]), "1 code arrays, but 2 crops are noted"),
    (changed() | {"codes.npy": npy_bytes(np.full((1, 64), 512, np.uint16))}, "code 512 is outside the codebook of 512"),
    (changed() | {"codes.npy": npy_bytes(np.zeros((1, 63), np.uint16))}, r"codes are uint16 \(1, 63\), wanted uint16"),
    (changed() | {"codes.npy": npy_bytes(np.zeros((1, 64), np.int64))}, r"codes are int64 \(1, 64\), wanted uint16"),
    (changed() | {"codes.npy": b"junk"}, "cannot be read"),
    (changed() | {"json": b"[]"}, "cannot be read"),
    ({"json": changed()["json"]}, "has no codes.npy"),
    (
        changed(t5={"source": "alt"}) | {"t5.npy": npy(np.full((2, 8), np.nan, np.float32))},
        r"features are \(2, 8\) with 0.0% finite numbers",
    ),
]


@pytest.mark.parametrize(("parts", "says"), FAULTS, ids=[says[:25] for _, says in FAULTS])
def test_a_sample_that_is_none_is_named(tmp_path, parts, says):
    write(tmp_path, parts)
    with pytest.raises(LoaderError, match=rf"shard .*00000\.tar, sample 0{{32}}: {says}"):
        code_set(tmp_path).batch(0, 1)


def test_damaged_members_are_named(tmp_path):
    write_codes(tmp_path, (3,))
    shard = tmp_path / "codes" / "pretrain" / "00000.tar"
    whole = shard.read_bytes()
    key = next(read_shard(shard))[0]
    for word, member in ((b"number 0", "json"), (b"\x93NUMPY", "codes.npy")):
        place = whole.index(word)
        shard.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
        with pytest.raises(LoaderError, match=f"sample {key}: its {member} is damaged: not the CRC-32 of the index"):
            code_set(tmp_path).batch(0, 3)
    shard.write_bytes(whole)
    codes = code_set(tmp_path)
    shard.write_bytes(whole[:600])
    with pytest.raises(LoaderError, match="is cut at byte 600"):
        codes.batch(0, 3)


def test_labels_stand_as_captions_and_have_their_range(tmp_path):
    write(tmp_path, changed(label=2))
    batch = code_set(tmp_path, classes=3).batch(0, 1)
    assert (batch.captions_B, batch.sources_B, batch.features_B) == (["2"], [""], [None])
    with pytest.raises(LoaderError, match=r"has label 2; .* wants one from 0 to train\.classes - 1, 1"):
        code_set(tmp_path, classes=2).batch(0, 1)
    write(tmp_path, changed())
    with pytest.raises(LoaderError, match="has no label"):
        code_set(tmp_path, classes=2).batch(0, 1)


def test_batches_are_joined_in_an_order(tmp_path):
    write_codes(tmp_path, (6,))
    codes = code_set(tmp_path)
    both = joined([codes.batch(0, 2), codes.batch(2, 4)], 7, np.array([3, 0, 1, 2]))
    whole = codes.batch(0, 4)
    assert both.step == 7
    assert both.uids_B == [whole.uids_B[place] for place in (3, 0, 1, 2)]
    assert np.array_equal(both.codes_BN, whole.codes_BN[[3, 0, 1, 2]])
