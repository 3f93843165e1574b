"""Elements of a JSON array, one at a time; where it breaks off a last None says so."""

import io
import json

import pytest

from pipeline.inputs import json_array as module
from pipeline.inputs.json_array import elements


def read(data):
    return list(elements(io.BytesIO(data)))


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_elements_come_in_order_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    values = [{"url": "http://a.test/,]}", "text": 'a "b" \n é'}, "http://a.test", 12, None, [], {"a": {"b": [1]}}]
    for indent in (None, 2):
        assert read(b"\xef\xbb\xbf \n" + json.dumps(values, indent=indent, ensure_ascii=False).encode()) == values
    assert read(b"[]") == []
    assert read(b"[ ] more") == [None]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"a": 1}, {"a": 2', [{"a": 1}, None]),
        (b'[{"a": 1}', [None]),
        (b'[{"a": 1}, {a: 2}, {"a": 3}]', [{"a": 1}, None]),
        (b'{"a": 1}', [None]),
        (b"", [None]),
        (b"[" * 10_000, [None]),
    ],
)
def test_what_comes_behind_damage_is_one_none(data, expected):
    assert read(data) == expected


def test_a_number_of_any_length_costs_no_element():
    assert read(b"[1, " + b"9" * 4301 + b", 2]") == [1, float("inf"), 2]


def test_an_element_that_is_too_long_is_not_held(monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 50)
    monkeypatch.setattr(module, "BLOCK", 10)
    assert read(json.dumps(["short", "x" * 200]).encode()) == ["short", None]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"[1, 2]\n[3]\n", [1, 2, 3]),
        (b"[] [4] \n", [4]),
        (b"[1] rubbish [2]", [1, None]),
        (b"[1]\n[2", [1, None]),
    ],
)
def test_what_stands_behind_an_array_is_read_or_said(data, expected):
    assert read(data) == expected


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[1, "a\0b", {"c": \0 2}, 3]', [1, None, None, 3]),
        (b"[1, \0\0 2 \0, 3]\n[4]", [1, None, 2, None, 3, 4]),
        (b"\0\0[1]", [None, 1]),
        (b"[1]\0\0\0", [1, None]),
        (b"[1\0", [None]),
    ],
)
def test_nuls_cost_the_element_that_has_them_and_no_other(monkeypatch, data, expected, block):
    """All that stood behind one was lost."""
    monkeypatch.setattr(module, "BLOCK", block)
    assert read(data) == expected
