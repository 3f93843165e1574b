"""Shards are looked through for digests, sha256, embeddings and texts, each in the table that has it."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.plans import write_plan
from manifests.tombstones import write_tombstones
from pipeline.recipes.load import parse_recipe
from pipeline.steps.listed import Embedded, RowLists, Shard, shards_of
from pipeline.steps.score import EMBEDDING
from tests.support.records import uid

SHA = hashlib.sha256(b"a picture").digest()


def put(root, step, path, table, rows=2):
    write_table(root / path, pa.table(table))
    file = FileRecord.of(root, root / path)
    Journal(root, step).record(ShardRecord("00000", "", (file, file), rows, rows))


@pytest.fixture
def recipe(tmp_path):
    """Write a run of one shard, and tables of a plan without one; lists of MD5 and prompts."""
    uids = pa.array([uid(1), uid(2)], pa.binary(16))
    write_plan(
        tmp_path,
        "fetch",
        [
            ("00000", pa.table({"uid": uids, "text": ["a dog", None], "top_caption": ["x", "A red cube on a ball"]})),
            ("00001", pa.table({"uid": uids[:0], "text": pa.array([], pa.string()), "top_caption": pa.nulls(0)})),
        ],
    )
    put(tmp_path, "fetch", "pairs/00000.parquet", {"key": [uid(1).hex(), uid(2).hex()], "md5": [None, "0" * 32]})
    embeddings = pa.array([[3.0, 4.0], None], pa.list_(pa.float32()))
    scores = {"uid": uids, "sha256": pa.array([SHA, None], pa.binary(32)), EMBEDDING: embeddings}
    put(tmp_path, "score", "scores/00000.parquet", scores)
    (tmp_path / "md5.txt").write_text("0" * 32 + "\n")
    (tmp_path / "prompts.txt").write_text("a red cube on a ball\n")
    lists = {"filter": {"exclude": [{"file": str(tmp_path / "md5.txt"), "kind": "md5"}]}}
    prompts = {"decontaminate": {"prompts": [str(tmp_path / "prompts.txt")], "cosine": 0.9}}
    return parse_recipe({**lists, **prompts, "tier": {"a": {"size": 16}}})


def test_the_tables_of_a_shard_are_known_by_its_name(recipe, tmp_path):
    whole = Shard("manifests/plan/fetch/00000.parquet", "pairs/00000.parquet", "scores/00000.parquet", 2)
    assert shards_of(tmp_path) == [whole, Shard("manifests/plan/fetch/00001.parquet")]


def test_each_kind_is_found_where_it_stands(recipe, tmp_path):
    value = hashlib.sha256(SHA.hex().encode()).hexdigest()
    write_tombstones(tmp_path, [{"kind": "sha256", "value_sha256": value, "uid": uid(9)}])
    lists = RowLists(recipe, tmp_path, Embedded(["cat.png"], np.array([[6, 8], [-1, 0]], np.float32)))
    assert lists
    rows = [row for shard in shards_of(tmp_path) for table in lists.found_in(shard) for row in table.to_pylist()]
    assert [(row["uid"][0], row["reason"], row["by"], row["item"], row["detail"]) for row in rows] == [
        (2, "removed", None, None, "md5.txt: md5"),
        (1, "removed", None, None, "tombstone of its sha256"),
        (1, None, "cosine", "cat.png", "cosine 1.000"),
        (2, None, "ngram", "prompts.txt line 1", "top_caption has 'a red cube on a ball'"),
    ]


def test_nothing_to_look_for(tmp_path):
    recipe = parse_recipe({"tier": {"a": {"size": 16}}})
    assert not RowLists(recipe, tmp_path, None)
    assert shards_of(tmp_path) == []
    assert Embedded.of(recipe, tmp_path) is None


def test_embeddings_of_evaluation_pictures_are_left_for_workers(tmp_path):
    assert Embedded.read(tmp_path) is None
    Embedded(["a", "b"], np.array([[1, 0], [0, 1]], np.float32)).write(tmp_path)
    names, values = Embedded.read(tmp_path)
    assert (names, values.tolist()) == (["a", "b"], [[1, 0], [0, 1]])
