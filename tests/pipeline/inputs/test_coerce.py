"""Drift of types: what cannot be said in our type is null, odd text keeps its place."""

import math

import pyarrow as pa
import pytest

from pipeline.inputs.coerce import coerce


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
    assert coerce(pa.chunked_array([pa.array([["a"], None])]), pa.string()).to_pylist() == [None, None]


def test_infinities_are_null():
    """One infinite similarity stopped the whole run: JSON has no such number."""
    found = coerce(pa.array([1.0, float("inf"), -float("inf"), float("nan"), 1e39]), pa.float32())
    assert found.to_pylist() == [1.0, None, None, None, None]
    assert coerce(pa.array([float("inf"), 3.0]), pa.int32()).to_pylist() == [None, 3]
