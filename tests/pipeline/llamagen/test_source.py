"""The pictures that LlamaGen's folders name: each at its place, and no fault shifts another."""

import io
import json
import os

import pytest

from manifests.uid import uid_of
from pipeline.inputs.jsonl import MAX_LINE
from pipeline.llamagen import source
from pipeline.llamagen.arrays import Fault
from pipeline.llamagen.source import Entry, Labelled, Lines, Place, read_line, sources_of, spans
from pipeline.recipes.schema import RecipeError


class Counts:
    """Counts what a source names, and remembers what it drops."""

    def __init__(self):
        self.rows_in, self.dropped = 0, []

    def drop(self, fault, order, name):
        self.dropped.append((fault.reason, order, name))


def line(path, *texts, **more):
    return json.dumps({"image_path": path, "text": list(texts), **more}).encode() + b"\n"


def fault_of(data, first=False):
    with pytest.raises(Fault) as caught:
        read_line(data, first=first)
    return caught.value.reason, str(caught.value)


# ---------------------------------------------------------------- entries


def test_a_uid_is_of_the_name_and_the_first_text():
    assert Entry("a.jpg", "a/0.npy", ("blip", "llava")).uid == uid_of("a.jpg", "blip")
    assert Entry("codes/7", "7.npy").uid == uid_of("codes/7", None)


def test_captions_are_each_sources_first_text_and_no_empty_one():
    entry = Entry("a", "a/0.npy", ("top", "", "top", "own"), ("top_caption", "llava", "top_caption", "llava"))
    assert entry.captions == {"top_caption": "top", "llava": "own"}


@pytest.mark.parametrize(
    ("said", "count", "expected"),
    [
        (None, 2, ("top_caption", "llava")),
        (None, 5, ("top_caption", "llava", "llava_short", "text_3", "text_4")),
        (["alt", "human"], 2, ("alt", "human")),
        (["alt"], 2, ("top_caption", "llava")),  # not one per text
        (["alt", 3], 2, ("top_caption", "llava")),
        ("ab", 2, ("top_caption", "llava")),
    ],
)
def test_sources_are_what_our_export_says_else_by_position(said, count, expected):
    assert sources_of({"text_sources": said}, count) == expected


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ("blank_line", "")),
        (b" \r\n", ("blank_line", "")),
        (b"\xff\n", ("broken_line", "not UTF-8")),
        (b'{"image_path"\n', ("broken_line", "not JSON")),
        (b"[" * 100_000, ("broken_line", "not JSON")),
        (b"\xef\xbb\xbf" + line("a", "b"), ("broken_line", "not JSON")),  # a byte order mark inside a file
        (b"[]\n", ("broken_line", "no image_path")),
        (b"3\n", ("broken_line", "no image_path")),
        (b'{"text": ["a"]}\n', ("broken_line", "no image_path")),
        (b'{"image_path": "", "text": ["a"]}\n', ("broken_line", "no image_path")),
        (b'{"image_path": 7, "text": ["a"]}\n', ("broken_line", "no image_path")),
    ],
)
def test_a_line_that_is_none_has_its_reason(data, expected):
    assert fault_of(data) == expected


BAD_TEXTS = [[None], ["a", 3], [], "a text", None, 3, {"0": "a"}, [["a"]], ["", ""]]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=repr)
def test_a_text_that_is_no_list_of_texts_is_bad(text):
    data = json.dumps({"image_path": "/1.jpg", "text": text}).encode()
    assert fault_of(data) == ("bad_text", "wanted a list of texts, one of them not empty")


def test_a_byte_order_mark_and_the_longest_line_are_read(monkeypatch):
    data = line("ü.jpg", "a", "")
    assert read_line(b"\xef\xbb\xbf" + data, first=True)["image_path"] == "ü.jpg"
    monkeypatch.setattr(source, "MAX_LINE", len(data))
    assert read_line(data, first=False)["text"] == ["a", ""]
    assert fault_of(data + b" ") == ("broken_line", f"longer than {len(data):,} bytes")
    assert MAX_LINE == 16 << 20


def test_a_number_of_any_length_costs_no_line():
    assert read_line(b'{"n": ' + b"1" * 5000 + b', "image_path": "a", "text": ["x"]}', first=False)["text"] == ["x"]


def test_spans_cover_a_file_and_hold_the_head_of_a_long_line_alone(monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE", 4)
    data = b"ab\n" + b"x" * 30 + b"\n" + b"cd\r\n" + b"e"
    # the long line begins at 3 and has 31 bytes with its end
    assert list(spans(io.BytesIO(data))) == [(0, b"ab\n"), (3, b"xxxxx"), (34, b"cd\r\n"), (38, b"e")]
    assert list(spans(io.BytesIO(b""))) == []


def test_each_line_is_found_again_by_its_place(tmp_path):
    good = [line("/0.jpg", "zero"), line("/1.jpg", "one", "long"), line("/2.jpg", "two")]
    (tmp_path / "b.v1.jsonl").write_bytes(good[0] + b"\n" + b"junk\n" + good[1])
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + good[2])
    (tmp_path / "notes.txt").write_bytes(b"none of them")
    lines, seen = Lines(tmp_path), Counts()
    places = list(lines.places(seen))
    # files in the order of their names; codes by the name up to its first dot and the line from 0
    assert [lines.entry(place).codes for place in places] == ["a/0.npy", "b/0.npy", "b/3.npy"]
    assert [lines.entry(place).texts for place in places] == [("two",), ("zero",), ("one", "long")]
    assert [lines.named(place) for place in places] == ["a.jsonl:0", "b.v1.jsonl:0", "b.v1.jsonl:3"]
    assert [place.uid for place in places] == [lines.entry(place).uid for place in places]
    assert seen.rows_in == 5
    assert seen.dropped == [("blank_line", (1, 1), "b.v1.jsonl:1"), ("broken_line", (1, 2), "b.v1.jsonl:2")]


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(line("/1.jpg", "\ufeffone", "\ufefftwo"))
    lines = Lines(tmp_path / "a.jsonl")
    (place,) = lines.places(Counts())
    assert lines.entry(place).texts == ("one", "two")
    assert place.uid == uid_of("/1.jpg", "one")


def test_a_half_character_is_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"image_path": "/\\ud83d.jpg", "text": ["half \\ud83d"]}\n')
    lines = Lines(tmp_path / "a.jsonl")
    (place,) = lines.places(Counts())
    assert (lines.entry(place).name, lines.entry(place).texts) == ("/\ufffd.jpg", ("half \ufffd",))


@pytest.mark.parametrize("later", [b"x" * 40, line("/9.jpg", "zero")], ids=["broken", "another"])
def test_a_line_that_changed_since_it_was_listed_ends_the_import(tmp_path, later):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line("/0.jpg", "zero"))
    lines = Lines(tmp_path)
    (place,) = lines.places(Counts())
    path.write_bytes(later)
    with pytest.raises(RecipeError, match=r"a\.jsonl:0 changed while it was read"):
        lines.entry(place)


def test_two_files_of_one_stem_are_refused(tmp_path):
    for name in ("a.0.jsonl", "a.1.jsonl"):
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(RecipeError, match="two jsonl files share the stem 'a'"):
        Lines(tmp_path)
    assert Lines(tmp_path / "a.0.jsonl").stems == ["a"]  # one of them alone


# ---------------------------------------------------------------- ImageNet's folders


def test_pictures_with_labels_are_the_numbers_of_their_files(tmp_path):
    codes, labels = tmp_path / "imagenet_codes", tmp_path / "imagenet_labels"
    for folder, names in ((codes, "0 10 2 007 1a -3 mean ._0"), (labels, "0 2 5 05 010")):
        folder.mkdir()
        for name in names.split():
            (folder / f"{name}.npy").write_bytes(b"")
    (codes / "10.npz").write_bytes(b"")
    labelled, seen = Labelled(codes, labels), Counts()
    places = sorted(labelled.places(seen), key=lambda place: place.line)
    assert [labelled.named(place) for place in places] == ["0.npy", "2.npy", "007.npy", "10.npy"]
    assert labelled.entry(places[1]) == Entry("imagenet_codes/2", "2.npy")
    assert places[1] == Place(uid_of("imagenet_codes/2", None), 0, 2, 1)
    # a number written with zeros was in no count, nor was a name of more than a number
    assert labelled.entry(places[2]) == Entry("imagenet_codes/7", "007.npy")
    assert seen.rows_in == 9
    # 7 and 10 have no label: read_label says so
    assert sorted(seen.dropped) == [
        ("bad_name", (0, -1), "-3.npy"),
        ("bad_name", (0, -1), "1a.npy"),
        ("missing_codes", (0, 5), "05.npy"),
        ("missing_codes", (0, 5), "5.npy"),
        ("missing_codes", (0, 10), "010.npy"),
    ]


def test_a_pipe_among_the_lines_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(OSError, match=r"not a plain file: .*a\.jsonl"):
        list(Lines(tmp_path).places(Counts()))
