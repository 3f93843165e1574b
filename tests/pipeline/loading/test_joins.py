"""Captions and features from other tables stand beside the samples of their uid, in any order, without packing."""

import numpy as np
import pyarrow as pa
import pytest

from manifests.files import write_table
from pipeline.loading.batch import Expected
from pipeline.loading.captions import Drawing
from pipeline.loading.joins import Join
from pipeline.loading.loader import CodeSet, Reading
from pipeline.loading.selection import Selection
from pipeline.loading.window import Source
from pipeline.recipes.schema import RecipeError
from tests.support.code_shards import row_of, tokenizer, write_codes
from tokenize_shards.packed_index import open_packed_index
from tokenize_shards.samples import LoaderError


@pytest.fixture
def root(tmp_path):
    write_codes(tmp_path, (9, 0, 14, 7))
    return tmp_path


def table(path, numbers, **columns):
    uids = pa.array([row_of(n)["uid"] for n in numbers], pa.binary(16))
    write_table(path, pa.table({"uid": uids, **columns}))
    return str(path)


def read(root, names, weights, **expected):
    index = open_packed_index(root / "codes" / "pretrain")
    source = Source(index, Selection(), Join(root, index, names))
    codes = CodeSet(source, Expected(tokenizer(), Drawing(weights), 0, **expected), Reading(2))
    batch = codes.batch(0, 30)
    return source.join, {int(uid, 16): place for place, uid in enumerate(batch.uids_B)}, batch


def test_captions_of_any_order_stand_beside_their_samples(root, tmp_path):
    numbers = [n for n in np.random.default_rng(1).permutation(60).tolist() if n % 3]
    halves = numbers[:15], numbers[15:]
    for part, some in enumerate(halves):
        table(tmp_path / "more" / f"{part}.parquet", some, qwen=[f"qwen {n}" if n % 4 else None for n in some])
    join, place, batch = read(root, [str(tmp_path / "more")], {"qwen": 1.0})
    assert join.says == "train.join: 20 of 30 samples have a row beside them"
    for n in range(30):
        has = n % 3 and n % 4
        assert batch.captions_B[place[n]] == (f"qwen {n}" if has else row_of(n)["text"])
        assert batch.sources_B[place[n]] == ("qwen" if has else "alt")


def test_a_source_of_the_same_name_takes_the_samples_place(root, tmp_path):
    name = table(tmp_path / "t.parquet", range(30), alt=[f"new {n}" for n in range(30)])
    _, place, batch = read(root, [name], {"alt": 1.0})
    assert [batch.captions_B[place[n]] for n in range(30)] == [f"new {n}" for n in range(30)]


def features_of(numbers, dtype="fp16"):
    arrays = [np.full((n % 3 + 1, 4), n, np.float16) for n in numbers]
    return {
        "tokens": pa.array([len(array) for array in arrays], pa.int16()),
        "features": [array.tobytes() for array in arrays],
        "dtype": [dtype] * len(arrays),
        "features_of": ["llava"] * len(arrays),
    }


def test_features_are_of_one_caption_and_have_their_width(root, tmp_path):
    name = table(tmp_path / "t.parquet", range(5, 30), **features_of(range(5, 30)))
    _, place, batch = read(root, [name], {"llava": 1.0})
    assert batch.features_B[place[2]] is None
    assert np.array_equal(batch.features_B[place[8]], np.full((3, 4), 8.0))
    assert read(root, [name], {"alt": 1.0})[2].features_B == [None] * 30
    with pytest.raises(LoaderError, match=r"stored text features are 4 wide, train\.cond_dim is 8"):
        read(root, [name], {"llava": 1.0}, width=8)


def test_the_join_is_kept_and_made_anew_for_other_tables(root, tmp_path):
    name = table(tmp_path / "t.parquet", range(30), qwen=["a"] * 30)
    first = read(root, [name], {"qwen": 1.0})[0]
    made = first.path.stat().st_mtime_ns
    assert read(root, [name], {"qwen": 1.0})[0].path.stat().st_mtime_ns == made
    table(tmp_path / "t.parquet", range(30), qwen=["b"] * 30)
    again, _, batch = read(root, [name], {"qwen": 1.0})
    assert set(batch.captions_B) == {"b"}
    assert again.digest != first.digest
    assert again.path != first.path


REFUSALS = [
    ({"uid": pa.array([1, 2])}, "has no column 'uid' of 16 bytes or 32 hex digits; it has uid"),
    ({"uid": ["0" * 32], "score": [1.0]}, "column 'score' of .* is double; wanted captions as text"),
    ({"uid": ["0" * 32], "features": [b""]}, "has features; wanted tokens, features, dtype, features_of"),
    ({"uid": ["0" * 32] * 2, "qwen": ["a", "b"]}, "a uid stands twice"),
]


@pytest.mark.parametrize(("columns", "says"), REFUSALS)
def test_tables_that_are_none_are_refused(root, tmp_path, columns, says):
    write_table(tmp_path / "t.parquet", pa.table(columns))
    with pytest.raises(RecipeError, match=says):
        read(root, [str(tmp_path / "t.parquet")], {"alt": 1.0})


def test_names_of_no_table_are_refused(root):
    with pytest.raises(RecipeError, match=r"train\.join: no table at 'nowhere'"):
        read(root, ["nowhere"], {"alt": 1.0})
