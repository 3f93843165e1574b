"""Lines of JSON as rows: captions by their place, paths that stay inside the data set, values of any kind."""

import io

import pyarrow as pa
import pytest

from pipeline.inputs import jsonl as module
from pipeline.inputs.jsonl import Folder, decoded, filled_lines, from_json, lines, read_line, table_of, whole_text

HERE = Folder("/d", "/d")
MAPPING = {"url": "image_path", "text": "text"}


def test_lines_of_any_length(monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 5)
    monkeypatch.setattr(module, "BLOCK", 3)
    assert list(lines(io.BytesIO(b"ab\n\nabcde\nabcdef\nx"))) == [b"ab", b"", b"abcde", None, b"x"]
    assert list(lines(io.BytesIO(b"abcdefgh"))) == [None]
    assert list(lines(io.BytesIO(b"a\n"))) == [b"a"]


def test_a_number_of_any_length_costs_no_line():
    """Python converts no more than 4,300 digits."""
    line = b'{"image_path": "a.jpg", "text": ["x"], "n": ' + b"7" * 4301 + b"}"
    assert read_line(line, HERE, MAPPING) == {"url": "a.jpg", "text": "x", "top_caption": None, "fault": None}
    assert from_json("7" * 999) == int("7" * 999)
    assert from_json("[" * 100_000) is None


def test_blank_lines_are_no_rows():
    """Each was a broken_line."""
    data = b'\xef\xbb\xbf{"a": 1}\r\n\r\n \t\n\n\xc2\xa0\xe3\x80\x80\n\xef\xbb\xbf\n{}\r\n\n'
    assert list(filled_lines(io.BytesIO(data))) == [b'\xef\xbb\xbf{"a": 1}\r', b"{}\r"]


def test_a_byte_order_mark_says_how_a_text_is_written():
    assert decoded(b"\xef\xbb\xbfcaf\xc3\xa9") == "café"
    assert decoded("café".encode("utf-16-le")) != "café"
    assert decoded("café".encode("utf-16")) == "café"
    assert decoded(b"caf\xe9") == "caf\ufffd"
    assert decoded("café".encode("utf-32")) == "café"
    line = '{"image_path": "\ufeffa.jpg", "text": ["\ufeffx", " \ufeff \ufeffy"]}'.encode()
    row = read_line(line, HERE, {**MAPPING, "top_caption": "top_caption"})
    assert (row["url"], row["text"], row["top_caption"]) == ("a.jpg", "x", "y")


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("a.jpg", "lists/a.jpg"),
        ("../p/a.jpg", "p/a.jpg"),
        ("/data/p/a.jpg", "p/a.jpg"),
        ("/mnt/p/a.jpg", "p/a.jpg"),
        ("../../a.jpg", None),
        ("/database/a.jpg", None),
        ("p/\0.jpg", None),
        ("file:///data/p/a.jpg", None),
        ("..", None),
    ],
)
def test_a_path_stays_in_the_data_set(path, inside):
    assert Folder("/data/lists", "/data", "/mnt").inside(path) == inside


def test_captions_by_their_place():
    mapping = {"url": "image_path", "text": "text", "top_caption": "top_caption", "similarity": "clip"}
    row = read_line(b'{"image_path": "a.jpg", "text": ["x", "y", "z"], "clip": 0.5}', Folder("/d", "/d"), mapping)
    assert (row["text"], row["top_caption"], row["similarity"], row["fault"]) == ("x", "y", 0.5, None)
    assert read_line(b'{"image_path": "a.jpg", "text": []}', Folder("/d", "/d"), mapping)["text"] is None
    assert read_line(b"[" * 100_000, Folder("/d", "/d"), mapping) == {"fault": "broken_line"}


@pytest.mark.parametrize(
    "line",
    [
        None,  # too long
        b"",
        b"{",
        b'["a.jpg"]',
        b'"a.jpg"',
        b"{}",
        b'{"image_path": null}',
        b'{"image_path": 7}',
    ],
)
def test_a_line_without_a_path_is_broken(line):
    assert read_line(line, HERE, MAPPING) == {"fault": "broken_line"}


@pytest.mark.parametrize(
    ("path", "url", "fault"),
    [
        ("a.jpg", "a.jpg", None),
        ("/d/b/../a.jpg", "a.jpg", None),
        ("", "", "bad_url"),
        ("../a.jpg", "../a.jpg", "blocked_path"),
        ("\\ud800.jpg", "\ufffd.jpg", None),  # half a surrogate pair
    ],
)
def test_the_path_of_a_line_and_its_fault(path, url, fault):
    row = read_line(f'{{"image_path": "{path}", "text": "x"}}'.encode(), HERE, MAPPING)
    assert (row["url"], row["fault"]) == (url, fault)


def test_bytes_that_are_not_utf8_and_a_mark_of_byte_order():
    row = read_line(b'\xef\xbb\xbf{"image_path": "a.jpg", "text": "caf\xe9"}', HERE, MAPPING)
    assert (row["url"], row["text"]) == ("a.jpg", "caf\ufffd")


def test_a_caption_that_is_no_text_is_null():
    said = [read_line(f'{{"image_path": "a", "text": {text}}}'.encode(), HERE, MAPPING) for text in ("7", "[7]", "{}")]
    assert [row["text"] for row in said] == [None, None, None]


def test_a_top_caption_of_its_own_goes_before_the_second_of_the_list():
    mapping = {**MAPPING, "top_caption": "top"}
    row = read_line(b'{"image_path": "a", "text": ["x", "y"], "top": "z"}', HERE, mapping)
    assert (row["text"], row["top_caption"]) == ("x", "z")


def test_half_a_pair_becomes_the_replacement_character_and_a_whole_one_its_character():
    assert whole_text("a\ud83d") == "a\ufffd"
    assert whole_text("\ud83d\ude00") == "\U0001f600"
    assert whole_text("café") == "café"


def test_rows_as_a_table_under_the_inputs_names():
    mapping = {"url": "image_path", "width": "w", "similarity": "clip"}
    rows = [
        {"url": "a", "width": "640", "similarity": 0.5, "fault": None, "key": "k0"},
        {"url": 7, "width": 2.0**40, "similarity": "1e999", "fault": "bad_url"},
        {"width": True, "similarity": [1]},
    ]
    table = table_of(rows, mapping, ("key",))
    assert table.to_pydict() == {
        "image_path": ["a", None, None],
        "w": [640, None, None],
        "clip": [0.5, None, None],
        "key": ["k0", None, None],
        "tessera_fault": [None, "bad_url", None],
    }
    assert (table.schema.field("image_path").type, table.schema.field("w").type) == (pa.string(), pa.int32())
