"""Lists of every kind, and clusters, are marked in parts and on a cluster as one process marks them, to the byte."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_json, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.layout import SCRATCH
from manifests.plans import write_plan
from manifests.tombstones import BY_TOMBSTONE, write_tombstones
from pipeline.execution import shuffle
from pipeline.execution.shuffle import here
from pipeline.recipes.load import parse_recipe
from pipeline.steps import dedup, listed, near_frequent, near_legs, near_marked
from pipeline.steps.dedup import Dedup
from pipeline.steps.listed import Embedded
from pipeline.steps.near_legs import INTO, STAMP
from pipeline.steps.score import EMBEDDING
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.records import uid

COUNT = 120


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """A unit a shard, embeddings of evaluation pictures that no model has made."""
    for module in (near_legs, near_frequent, near_marked):
        monkeypatch.setattr(module, "GROUP_ROWS", 1)
    monkeypatch.setattr(near_legs, "SAMPLE", 50)
    monkeypatch.setattr(near_frequent, "SAMPLE", 50)
    seen = Embedded(["cat.png"], np.array([[1, 0]], np.float32))
    monkeypatch.setattr(listed.Embedded, "of", lambda recipe, root: seen)


def digest(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


def put_run(root):
    """Write a run of shards of 30 rows: half of its pHashes near others; return these."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, COUNT, dtype=np.uint64)
    hashes[:40] = hashes[40:80] ^ (np.uint64(1) << rng.integers(0, 64, 40, dtype=np.uint64))
    hashes[80:90] = 7  # row 85 did not open
    uids = [rng.integers(0, 256, 16, dtype=np.uint8).tobytes() for _ in range(COUNT)]
    plans = []
    for shard, start in enumerate(range(0, COUNT, 30)):
        rows = range(start, start + 30)
        scores = {
            "uid": pa.array([uids[n] for n in rows], pa.binary(16)),
            "phash": pa.array([None if n % 17 == 0 else int(hashes[n]) for n in rows], pa.uint64()),
            "sha256": pa.array([digest(n) for n in rows], pa.binary(32)),
            EMBEDDING: pa.array([[1.0, n / 20] for n in rows], pa.list_(pa.float32())),
        }
        pairs = {"key": [uids[n].hex() for n in rows], "md5": [f"{n:032x}" for n in rows]}
        for step, path, table in (("score", "scores", scores), ("fetch", "pairs", pairs)):
            name = f"{shard:05d}"
            write_table(root / path / f"{name}.parquet", pa.table(table))
            file = FileRecord.of(root, root / path / f"{name}.parquet")
            Journal(root, step).record(ShardRecord(name, "", (file, file), 30, 30))
        texts = ["a red cube on a ball" if n % 9 == 0 else "a dog" for n in rows]
        urls = [f"http://{n % 50}.test/" for n in rows]
        plan = {"uid": scores["uid"], "url": urls, "text": texts, "top_caption": ["x"] * 30}
        plans.append((f"{shard:05d}", pa.table(plan)))
    write_plan(root, "fetch", plans)
    return hashes


def remove_some(root, hashes):
    """Write tombstones of a neighbour, a pHash and a sha256."""
    gone = {"kind": "uid", "value_sha256": "0" * 64, "uid": uid(1), "won": True, "promote": False}
    write_tombstones(
        root,
        [
            {**gone, "phash": int(hashes[100]) ^ 1},
            {**gone, "kind": "phash", "uid": None, "won": None, "phash": int(hashes[101])},
            {**gone, "kind": "sha256", "value_sha256": hashlib.sha256(digest(102).hex().encode()).hexdigest()},
        ],
    )


def recipe_of(root, hashes):
    """Return a recipe with lists of each kind."""
    (root / "prompts.txt").write_text("a red cube on a ball\n")
    (root / "md5.txt").write_text(f"{103:032x}\n")
    (root / "bad.txt").write_text(f"{int(hashes[104]) ^ 3:016x}\n")
    exclude = [
        {"file": str(root / "md5.txt"), "kind": "md5"},
        {"file": str(root / "bad.txt"), "kind": "phash", "radius": 2},
    ]
    lists = {"radius": 2, "placeholder_min": 2, "placeholders": ["0" * 16]}
    return parse_recipe(
        {
            "dedup": lists,
            "filter": {"exclude": exclude},
            "decontaminate": {"prompts": [str(root / "prompts.txt")], "cosine": 0.9},
            "tier": {"a": {"size": 16}},
        }
    )


def written(recipe, root, do=here, grouped=False):
    """Return the bytes of what dedup writes, and what it says."""
    step = Dedup(recipe, root)
    (unit,) = step.units()
    record = step.do_unit(unit, do, grouped)
    assert not (root / SCRATCH).exists()
    step.journal.record(record)
    return [(root / file.path).read_bytes() for file in record.files], step.outcome_notes()


def test_each_way_writes_the_same_bytes(tmp_path, monkeypatch):
    hashes = put_run(tmp_path)
    remove_some(tmp_path, hashes)
    recipe = recipe_of(tmp_path, hashes)
    wanted, says = written(recipe, tmp_path)
    marks = pq.read_table(pa.BufferReader(wanted[1])).to_pylist()
    kinds = {(row["reason"], row["detail"].split(" ")[0]) for row in marks}
    assert kinds == {
        ("near_duplicate", "its"),
        ("removed", "tombstone"),
        ("removed", "md5.txt:"),
        ("removed", "bad.txt:"),
        ("placeholder", "pHash"),
        ("in_eval_set", "cosine"),
        ("in_eval_set", "ngram"),
    }
    by_tombstone = {row["detail"] for row in marks if row["detail"].startswith(BY_TOMBSTONE)}
    assert len(by_tombstone) == 2  # by pHash and by sha256
    assert f"{BY_TOMBSTONE} its sha256" in by_tombstone
    monkeypatch.setattr(dedup, "HELD_ROWS", 0)
    for slice_bytes in (10_000_000, 900):
        monkeypatch.setattr(shuffle, "SLICE_BYTES", slice_bytes)
        assert written(recipe, tmp_path) == (wanted, says)
        with as_on_a_cluster():
            assert written(recipe, tmp_path, on_beam, grouped=True) == (wanted, says)
    assert "clusters of two and more, the largest of 9" in says[0]
    assert json.loads(wanted[3])["hashes"][0]["pictures"] == 9


def test_without_lists_no_shard_is_looked_through(tmp_path):
    put_run(tmp_path)
    write_json(tmp_path / SCRATCH / INTO / STAMP, {"stamp": "work", "rows": COUNT})
    recipe = parse_recipe({"dedup": {"radius": 2}, "tier": {"a": {"size": 16}}})
    assert len(near_marked.ByList(recipe, tmp_path).plan()) == 0
    Embedded(["cat.png"], np.array([[1, 0]], np.float32)).write(tmp_path / SCRATCH / INTO)
    assert len(near_marked.ByList(recipe, tmp_path).plan()) == 4
