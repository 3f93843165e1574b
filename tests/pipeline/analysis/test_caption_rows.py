"""Captions are read with the texts and the pHash of their pictures, in pieces of an even size."""

import random

import pyarrow as pa
import pytest

from manifests.files import FormatError, write_table
from pipeline.analysis import caption_rows
from pipeline.analysis.caption_rows import (
    Counted,
    aesthetic_column,
    caption_at,
    caption_pieces,
    caption_tables,
    first_tables,
    had_picture,
    ledger_pieces,
    picture_keys,
)
from tests.support.caption_runs import Row, filler, write_captions


@pytest.fixture
def root(tmp_path):
    """Return a run of 25 rows in shards of ten: every fifth was dropped, every third has no top_caption."""
    draw = random.Random(1)
    rows = [
        Row(
            n,
            text=f"alt {n}",
            top_caption=None if n % 3 == 0 else f"top {n}",
            captions={} if n % 5 == 0 else {"llava": f"{n} {filler(draw)}", "my_own": "x"},
            reason="aesthetic" if n % 5 == 0 else None,
            aesthetic=n / 10,
        )
        for n in range(25)
    ]
    return write_captions(tmp_path, rows, 10)


def test_captioners_and_their_tables(root):
    (root / "captions" / "attempts").mkdir()
    (root / "captions" / "attempts" / "llava-00000.parquet").write_bytes(b"other")
    (root / "captions" / ".tmp-host-1-x.parquet").write_bytes(b"half")
    found = caption_tables(root)
    assert {name: [path.stem for path in paths] for name, paths in found.items()} == {
        "llava": [f"llava-{n:05d}" for n in range(3)],
        "my_own": [f"my_own-{n:05d}" for n in range(3)],
    }
    assert len(first_tables(found["llava"], None)) == 3
    assert len(first_tables(found["llava"], 8)) == 1
    assert len(first_tables(found["llava"], 9)) == 2
    assert first_tables([], 5) == []


def test_each_caption_comes_with_its_texts(root):
    paths, counted = caption_tables(root)["llava"], Counted()
    (piece,) = caption_pieces(root, paths, counted)
    for row in piece.to_pylist():
        number = row["phash"]
        assert (row["uid"], row["text"]) == (Row(number).uid, f"alt {number}")
        assert row["top_caption"] == (None if number % 3 == 0 else f"top {number}")
        assert row["caption"].startswith(f"{number} ")
        assert caption_at(paths, row["place"]) == (row["uid"], row["caption"])
    assert (piece.num_rows, counted.rows, counted.origins) == (20, 20, {"attempt_1": 20})
    assert picture_keys(piece).to_pylist() == piece["phash"].to_pylist()


def test_pieces_are_even_whatever_the_shards(root, monkeypatch):
    paths = caption_tables(root)["llava"]
    whole = pa.concat_tables(caption_pieces(root, paths, Counted()))
    monkeypatch.setattr(caption_rows, "PIECE_ROWS", 7)
    pieces = list(caption_pieces(root, paths, Counted()))
    assert [piece.num_rows for piece in pieces] == [7, 7, 6]
    assert pa.concat_tables(pieces).equals(whole)
    monkeypatch.setattr(caption_rows, "PIECE_BYTES", 1)
    pieces = list(caption_pieces(root, paths, Counted()))
    assert {piece.num_rows for piece in pieces} == {1}
    assert pa.concat_tables(pieces).equals(whole)


def test_words_taken_over_from_the_input_are_counted_and_left_out(tmp_path):
    rows = [
        Row(1, captions={"a": "one"}, more={"origin": "attempt_1", "flags": ["repeated"]}),
        Row(2, captions={"a": "two"}, more={"origin": "attempt_2", "flags": []}),
        Row(3, captions={"a": "three"}, more={"origin": "top_caption", "flags": ["refusal", "repeated"]}),
        Row(4, captions={"a": "four"}, more={"origin": "alt", "flags": []}),
        Row(5, captions={"a": None}, more={"origin": None, "flags": ["empty"], "reason": "caption_empty"}),
    ]
    root, counted = write_captions(tmp_path, rows), Counted()
    (piece,) = caption_pieces(root, caption_tables(root)["a"], counted)
    assert sorted(piece["caption"].to_pylist()) == ["one", "two"]
    assert piece["text"].null_count == 2
    assert counted.origins == {"attempt_1": 1, "attempt_2": 1, "top_caption": 1, "alt": 1}
    assert counted.dropped == {"caption_empty": 1}
    assert counted.flags == {"repeated": 2, "refusal": 1, "empty": 1}


def test_without_plan_and_scores_a_caption_stands_alone(tmp_path):
    write_table(tmp_path / "captions" / "a-00000.parquet", caption_table(b"u" * 16))
    (piece,) = caption_pieces(tmp_path, caption_tables(tmp_path)["a"], Counted())
    assert piece.to_pylist()[0]["text"] is None
    assert picture_keys(piece).to_pylist() == [int.from_bytes(b"u" * 8, "big")]
    (piece,) = caption_pieces(tmp_path, caption_tables(tmp_path)["a"], Counted(), texts=False)
    assert piece["caption"].to_pylist() == ["A cat."]


def caption_table(uid):
    """Return a table of one caption as earlier versions wrote it."""
    columns = {"uid": pa.array([uid], pa.binary(16)), "caption": ["A cat."], "reason": pa.nulls(1, pa.string())}
    return pa.table(columns)


def test_rows_of_the_ledger_that_have_a_text(root):
    assert aesthetic_column(root) == "aesthetic_v2"
    (piece,) = ledger_pieces(root, None, "aesthetic_v2")
    assert (piece.num_rows, piece["reason"].null_count) == (25, 20)
    assert piece["aesthetic"].to_pylist()[7] == pytest.approx(0.7)
    assert piece["text"].to_pylist()[7] == "alt 7"
    (piece,) = ledger_pieces(root, 10, "conse")  # a score that the run has not
    assert (piece.num_rows, piece["aesthetic"].null_count) == (10, 10)


def test_a_ledger_of_two_minds_is_damaged(root):
    path = root / "ledger" / "select" / "00000.parquet"
    write_table(path, pa.table({"text": ["one"]}))
    with pytest.raises(FormatError, match="10 rows beside the 1 of"):
        list(ledger_pieces(root, None, "aesthetic_v2"))


def test_the_older_score_counts_where_the_run_has_no_other(tmp_path):
    assert aesthetic_column(tmp_path) == "aesthetic_v2"
    scores = {"aesthetic_v1": [5.0, None], "aesthetic_v2": pa.array([None, None], pa.float32())}
    write_table(tmp_path / "ledger" / "final" / "00000.parquet", pa.table(scores))
    assert aesthetic_column(tmp_path) == "aesthetic_v1"


def test_rules_judge_pictures_that_came():
    reasons = [
        None,
        "aesthetic",
        "my_rule",
        "near_duplicate",
        "http_404",
        "dns",
        "corrupt",
        "exact_duplicate",
        "removed",
    ]
    assert had_picture(pa.array(reasons)).to_pylist() == [True] * 4 + [False] * 5
    assert had_picture(pa.array([], pa.string())).to_pylist() == []
