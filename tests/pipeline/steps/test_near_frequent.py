"""What is asked of the most frequent pHashes, counted in parts, is what one process counts."""

import numpy as np
import pytest

from manifests.files import read_json, write_json
from manifests.layout import SCRATCH
from manifests.plans import write_plan
from manifests.schema import schema
from pipeline.execution import shuffle
from pipeline.execution.shuffle import here
from pipeline.recipes.load import parse_recipe
from pipeline.steps import near_frequent, near_legs
from pipeline.steps.frequent import frequent_hashes
from pipeline.steps.near_frequent import ASKED, Counted, Spelled, Told, find_frequent
from pipeline.steps.near_legs import INTO, STAMP, TABLES
from tests.support.records import put_table, uid

RECIPE = parse_recipe({"dedup": {"radius": 2, "placeholder_min": 2}, "tier": {"a": {"size": 16}}})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a run of 40 pictures in two shards, four of each pHash below 5, in parts of a few rows."""
    for module in (near_legs, near_frequent):
        monkeypatch.setattr(module, "GROUP_ROWS", 1)
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 200)
    plans = []
    for shard in (0, 1):
        rows = [{"uid": uid(20 * shard + n), "phash": n % 5 if n < 10 else 100 * (20 * shard + n)} for n in range(20)]
        put_table(tmp_path, "score", f"scores/{shard:05d}.parquet", rows, schema("uid", "phash"))
        said = [{"uid": row["uid"], "url": f"http://{n % 7}.test/", "text": f"{n % 2}"} for n, row in enumerate(rows)]
        table = near_frequent.pa.Table.from_pylist(said, schema=schema("uid", "url", "text"))
        plans.append((f"{shard:05d}", table))
    write_plan(tmp_path, "fetch", plans)
    write_json(tmp_path / SCRATCH / INTO / STAMP, {"stamp": "work", "rows": 40})
    return tmp_path


def test_counts_by_parts_are_those_of_all(root):
    counted, told = Counted(RECIPE, root), Told(RECIPE, root)
    assert len(counted.plan()) == 6  # 40 rows of 24 bytes in five parts, and the sample
    top, placeholders = find_frequent(counted, told, here, grouped=False)
    wanted, stand_ins = frequent_hashes(root, 2)
    assert top == wanted
    assert placeholders.tolist() == stand_ins.tolist()
    assert [entry["pictures"] for entry in top] == [4] * 5
    asked, pictures = np.load(counted.folder / ASKED)
    assert (asked.tolist(), pictures.tolist()) == ([0, 1, 2, 3, 4], [4] * 5)
    assert Spelled(RECIPE, root).rows() == 20
    assert read_json(counted.folder / TABLES)["tables"] is not None
