"""pack: what a text counts in the cutting of shards is what it always counted, and never less than it takes."""

import json
import random

import duckdb
import pyarrow as pa
import pytest

from manifests.manifest import Manifest
from manifests.tables import SAID
from pipeline.execution.run_folder import recipe_of_run
from pipeline.steps.pack import Pack, json_bytes, sources

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


def test_no_shard_is_larger_than_its_samples_count(made):
    step = Pack(recipe_of_run(made), made)
    tar = made / "codes" / "pretrain" / "00000.tar"
    index = json.loads(tar.with_suffix(".index.json").read_text())
    uids = sorted({bytes.fromhex(name.partition(".")[0]) for name, *_ in index["members"]})
    sizes = step.packed_bytes(uids)
    assert (len(uids), set(sizes)) == (12, set(uids))
    assert tar.stat().st_size <= sum(tiers["pretrain"] for tiers in sizes.values())


def test_samples_that_are_not_packed_have_no_size(made):
    assert Pack(recipe_of_run(made), made).packed_bytes([b"\0" * 16]) == {}


def test_units_are_shards_of_the_recipes_rows_and_descend_from_filter(made):
    step = Pack(recipe_of_run(made), made)
    assert step.parent == Manifest.read(made / "manifests" / "filter.json").digest
    names = [unit.name for unit in step.units()]
    assert names == ["pretrain-00000", "pretrain-00001", "finetune-00000", "finetune-00001"]  # 21 and some, 12 a shard


def test_sources_leave_out_places_of_removed_samples():
    assert sources(pa.table({"encoded": ["t-1", None, "t-0", "t-1"]})) == ["t-0", "t-1"]
