"""Drift of types: what cannot be said in our type is null, odd text keeps its place."""

import math

import pyarrow as pa
import pytest

from pipeline.inputs.coerce import coerce, is_readable


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
    assert coerce(pa.chunked_array([pa.array([0.25, float("nan"), None])]), pa.float32()).to_pylist() == [
        0.25,
        None,
        None,
    ]


def test_text_that_is_not_utf8_keeps_its_place():
    raw = pa.array([b"caf\xc3\xa9", b"caf\xe9", None], pa.binary())
    assert coerce(pa.chunked_array([raw]), pa.string()).to_pylist() == ["café", "caf\ufffd", None]
    assert coerce(pa.chunked_array([pa.array([7, None])]), pa.string()).to_pylist() == ["7", None]


def test_values_that_are_no_texts_and_no_numbers():
    far = pa.array([2**62, None], pa.timestamp("s"))  # no date that Python knows
    assert coerce(pa.chunked_array([far]), pa.float32()).to_pylist() == [None, None]
    assert len(coerce(pa.chunked_array([far]), pa.string())) == 2
    assert coerce(pa.chunked_array([pa.array([{"a": "b"}, None])]), pa.string()).to_pylist() == [None, None]


LISTS = [["one", "two"], [], None, [None, "two"], ["\ufeffthree"]]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view])
def test_of_a_list_of_texts_the_first_is_taken(kind):
    """TEXT as list<string> was null from end to end."""
    array = pa.array([["before"], *LISTS], kind(pa.string()))
    assert coerce(array.slice(1), pa.string()).to_pylist() == ["one", None, None, None, "three"]
    pairs = pa.array([["one", "two"], None], pa.list_(pa.string(), 2))
    assert coerce(pairs, pa.string()).to_pylist() == ["one", None]
    assert coerce(pa.array(["one"]).dictionary_encode(), pa.string()).to_pylist() == ["one"]


def test_a_byte_order_mark_before_a_text_is_none_of_it():
    texts = ["\ufeffcaption", "\ufeff\ufeff twice", "in the \ufeff middle", "\ufeff", None]
    expected = ["caption", " twice", "in the \ufeff middle", "", None]
    assert coerce(pa.array(texts), pa.string()).to_pylist() == expected
    assert coerce(pa.array([b"\xef\xbb\xbfcaption"]), pa.string()).to_pylist() == ["caption"]


@pytest.mark.parametrize(
    ("given", "as_text", "as_number", "as_hash"),
    [
        (pa.string(), True, True, True),
        (pa.dictionary(pa.int32(), pa.string()), True, True, True),
        (pa.list_(pa.string()), True, False, False),
        (pa.list_(pa.list_(pa.string())), False, False, False),
        (pa.struct([("a", pa.string())]), False, False, False),
        (pa.map_(pa.string(), pa.string()), False, False, False),
        (pa.int16(), True, True, True),
        (pa.float64(), True, True, False),
        (pa.decimal128(5, 2), True, True, False),
        (pa.bool_(), True, False, False),
        (pa.timestamp("s"), True, False, False),
        (pa.binary(), True, False, False),
        (pa.null(), True, True, True),
    ],
)
def test_types_that_are_null_from_end_to_end_are_known_beforehand(given, as_text, as_number, as_hash):
    types = (pa.string(), pa.float32(), pa.int64())
    assert tuple(is_readable(given, type_) for type_ in types) == (as_text, as_number, as_hash)


def test_infinities_are_null():
    """One infinite similarity stopped the whole run: JSON has no such number."""
    found = coerce(pa.array([1.0, float("inf"), -float("inf"), float("nan"), 1e39]), pa.float32())
    assert found.to_pylist() == [1.0, None, None, None, None]
    assert coerce(pa.array([float("inf"), 3.0]), pa.int32()).to_pylist() == [None, 3]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(4), pa.binary_view()], ids=str)
def test_a_byte_that_is_not_utf8_nulls_no_other_text(kind):
    given = pa.chunked_array([pa.array([b"caf\xe9", b"good", None], kind)])
    assert coerce(given, pa.string()).to_pylist() == ["caf\ufffd", "good", None]
    assert coerce(
        pa.chunked_array([pa.array([[b"caf\xe9"], [b"good"]], pa.list_(pa.large_binary()))]), pa.string()
    ) == (pa.array(["caf\ufffd", "good"]))


def test_a_byte_order_mark_behind_blanks_goes_too():
    given = pa.chunked_array([["\ufeff \ufeffb", " \ufeffcap", " cap", "a\ufeffb"]])
    assert coerce(given, pa.string()).to_pylist() == ["b", "cap", " cap", "a\ufeffb"]


def test_what_begins_as_a_mark_does_is_none():
    """U+FF0C and U+FEFC begin with a byte of the mark, or two; a slice looks at its own values alone."""
    texts = pa.array(["\ufeffa", "\uff0c\ufefc", "\U0001f600", "b\uff0c"])
    assert coerce(texts.slice(1), pa.string()).to_pylist() == ["\uff0c\ufefc", "\U0001f600", "b\uff0c"]
    assert coerce(texts, pa.string()).to_pylist()[0] == "a"
    assert coerce(texts.slice(1, 0), pa.string()).to_pylist() == []
    assert coerce(pa.array(["\uff0c", "", None]), pa.string()).to_pylist() == ["\uff0c", "", None]
