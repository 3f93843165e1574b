"""The samples of every tier meet in the packed order, range by range, each with the bytes that it always counted: never
less than it takes."""

import json
import random
import shutil
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from manifests.files import read_table
from manifests.tables import SAID
from manifests.uid import uid_hash
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.shuffle import here
from pipeline.steps import pack_order
from pipeline.steps.pack_order import PackOrder, json_bytes, range_of
from tokenize_shards.samples import captions_of
from tokenize_shards.text import T5Tokens

SQL = r"""coalesce(strlen({0}) + 5 * length(regexp_replace({0}, '[^\x00-\x1f"\\]', '', 'g')), 0)"""
"""What DuckDB counted before `json_bytes`: shards that were packed then keep their boundaries."""


def odd_texts(rows: int) -> list[str | None]:
    """Draw texts of quotes, backslashes, control characters, DEL, letters of one to four bytes, and nulls."""
    draw = random.Random(7)
    letters = ['"', "\\", "'", "\x00", "\x01", "\x1f", "\n", "\r", "\t", " ", "\x7f", "a", "é", "漢", "𝄞", "\u2028"]
    return [None, "", *("".join(draw.choices(letters, k=draw.randrange(12))) for _ in range(rows))]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (None, 0),
        ("", 0),
        ("a cat", 5),
        ("é漢𝄞", 2 + 3 + 4),
        ('say "cat"', 9 + 2 * 5),  # two quotes
        ("a\\b\n\x00", 5 + 3 * 5),  # a backslash and two control characters
        ("\x7f\u2028", 1 + 3),  # JSON leaves both as they are
    ],
)
def test_bytes_by_hand(text, count):
    assert json_bytes(pa.array([text], pa.string())).to_pylist() == [count]


def test_a_chunked_column_and_one_without_rows():
    assert json_bytes(pa.chunked_array([["ab"], ['"']])).to_pylist() == [2, 6]
    assert json_bytes(pa.array([], pa.string())).to_pylist() == []


def test_odd_texts_count_what_they_always_counted():
    texts = odd_texts(3000)
    with duckdb.connect() as connection:
        connection.register("odd", pa.table({"text": texts}))
        expected = [count for (count,) in connection.execute(f"SELECT {SQL.format('text')} FROM odd").fetchall()]
    assert json_bytes(pa.array(texts, pa.string())).to_pylist() == expected


def test_captions_count_what_they_always_counted():
    names = [field.name for field in SAID.value_type]
    texts = odd_texts(500)
    said = [[dict.fromkeys(names, text), dict.fromkeys(names, "a cat")] if text != "" else None for text in texts]
    with duckdb.connect() as connection:
        connection.register("packed", pa.table({"said": pa.array(said, SAID)}))
        connection.create_function(
            "json_bytes", json_bytes, ["VARCHAR"], "BIGINT", type="arrow", null_handling="special"
        )
        counts = connection.execute(f"SELECT {SQL.format('said::VARCHAR')}, json_bytes(said::VARCHAR) FROM packed")
        pairs = counts.fetchall()
    assert [before for before, _ in pairs] == [now for _, now in pairs]
    assert pairs[1] == (0, 0)  # no captions


def test_no_text_takes_more_than_it_counts():
    texts = [text for text in odd_texts(3000) if text is not None]
    counts = json_bytes(pa.array(texts)).to_pylist()
    assert all(
        len(json.dumps(text, ensure_ascii=False).encode()) - 2 <= count
        for text, count in zip(texts, counts, strict=True)
    )


def test_equal_ranges_of_draws_by_hand():
    draws = np.array([0, (1 << 62) - 1, 1 << 62, 1 << 63, (1 << 64) - 1], np.uint64)
    assert range_of(draws, np.uint64(4)).tolist() == [0, 0, 1, 2, 3]
    assert range_of(draws, np.uint64(1)).tolist() == [0] * 5
    assert range_of(draws, np.uint64(3)).tolist() == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(("sample_bytes", "shards"), [(500, 64), (9_000_000, 1)])
def test_every_sample_and_every_gap_stands_in_the_packed_order(made, monkeypatch, tmp_path, sample_bytes, shards):
    """Whatever the number of ranges and units."""
    run = tmp_path / "run"
    shutil.copytree(made, run)
    (run / "manifests" / "plan" / "pack" / "plan.json").unlink()  # the plan must be made again
    monkeypatch.setattr(pack_order, "SAMPLE_BYTES", sample_bytes)
    monkeypatch.setattr(pack_order, "SHARDS", shards)
    gaps = {bytes([n]) * 16: 1000 + n for n in range(5)}
    removed = SimpleNamespace(packed=lambda tier: gaps)
    monkeypatch.setattr(pack_order, "read_tombstones", lambda root: removed)
    step = PackOrder(recipe_of_run(run), run)
    step.make(here)
    assert step.ranges == (1 if sample_bytes == 500 else 6)  # 21 samples of 9 MB, 32 MB a range
    tables = list(step.in_order("pretrain"))
    assert len(tables) == step.ranges
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["uid"] for row in rows] == sorted((row["uid"] for row in rows), key=lambda one: (uid_hash(one, 0), one))
    assert {row["uid"]: row["bytes"] for row in rows if row["gone"]} == gaps
    samples = {row["uid"]: row["bytes"] for row in rows if not row["gone"]}
    assert len(samples) == len(rows) - 5 == 21
    assert step.sizes("pretrain", list(samples)[:3]) == dict(list(samples.items())[:3])
    assert list(step.in_order("nobody")) == []


@pytest.mark.parametrize("caption", ["alt", "top_caption"])
def test_stored_features_count_as_many_tokens_as_the_tokenizer_finds(made, tiny_t5, caption):
    """Whatever becomes of them afterwards: at most the bytes of a number of 16 bits, 32 to a token."""
    sets = [f'pretokenize.t5_weights="{tiny_t5}"', f'pretokenize.t5_caption="{caption}"']
    kinds = [recipe_of_run(made, sets=[*sets, f'pretokenize.t5="{t5}"']) for t5 in ("online", "precomputed")]
    steps = [PackOrder(recipe, made) for recipe in kinds]
    paths = sorted((made / "manifests" / "plan" / "pack").glob("pretrain-*"))
    rows = [row for path in paths for row in read_table(path).to_pylist()]
    online, stored = (step.sizes("pretrain", [row["uid"] for row in rows]) for step in steps)
    texts = [next((one["text"] for one in captions_of(row) if one["source"] == caption), None) for row in rows]
    tokens = [len(T5Tokens(str(tiny_t5)).ids([text])[0]) if text else 0 for text in texts]
    assert [stored[row["uid"]] - online[row["uid"]] for row in rows] == [2 * 32 * count for count in tokens]
    assert any(tokens) == (caption == "alt")


def test_nothing_is_done_where_the_plan_stands(made, monkeypatch):
    step = PackOrder(recipe_of_run(made), made)
    monkeypatch.setattr(PackOrder, "plan", None)
    step.make(here)
    assert not step.folder.exists()
