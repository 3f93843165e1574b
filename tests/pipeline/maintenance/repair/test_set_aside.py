"""pipeline/maintenance/repair/set_aside.py: a damaged group of what lies aside goes whole, with a word; others stay."""

import pytest

from manifests.aside import ASIDE, groups
from manifests.verify import verify_run
from pipeline.execution.fallen import keep_fallen
from pipeline.execution.reuse import set_aside
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair.session import STAGE_STEPS, Repair, RepairOptions
from pipeline.maintenance.repair.set_aside import WHY, drop_damaged
from pipeline.recipes.load import load_recipe
from tests.support.groups import journalled, scores
from tests.support.records import uid


@pytest.fixture
def root(tmp_path):
    """Return a run folder with two groups aside, of two rows and of one."""
    set_aside(tmp_path, "score", [scores(tmp_path, "0", [(uid(0), "a"), (uid(1), "b")])])
    set_aside(tmp_path, "score", [scores(tmp_path, "1", [(uid(2), "c")])])
    journalled(tmp_path)
    keep_fallen(tmp_path, "score", "sha256")
    return tmp_path


def drop(root):
    found = {f.path: f for f in verify_run(root, STAGE_STEPS).wrong if f.path.startswith(ASIDE)}
    recipe = load_recipe("demo", [f'output.root="{root}"'])
    work = Repair(root, root / "copy", recipe, Runtime(), RepairOptions(), found)
    drop_damaged(work)
    return work.repaired


def test_a_damaged_table_takes_its_group_along(root):
    group = next(group for group in groups(root, ASIDE, "score") if group.rows == 2)
    (group.folder / group.table).write_bytes(b"?")
    assert drop(root) == {f"aside/score/{group.table}": f"dropped with its 2 rows: {WHY}"}
    assert [left.rows for left in groups(root, ASIDE, "score")] == [1]
    assert not any(path.name.startswith(group.name) for path in group.folder.iterdir())
    assert drop(root) == {}


def test_a_damaged_record_takes_its_files_along(root):
    group = next(group for group in groups(root, ASIDE, "score") if group.rows == 1)
    group.path.write_text("{}")
    assert drop(root) == {f"aside/score/{group.name}.json": f"dropped with what it was the record of: {WHY}"}
    assert sorted(path.name.partition("-")[0] for path in group.folder.glob("*.parquet")) == [
        left.name for left in groups(root, ASIDE, "score")
    ]


def test_a_missing_table_takes_its_group_along(root):
    group = next(group for group in groups(root, ASIDE, "score") if group.rows == 1)
    (group.folder / group.table).unlink()
    assert drop(root) == {f"aside/score/{group.table}": f"dropped with its 1 rows: {WHY}"}
    assert not group.path.exists()
