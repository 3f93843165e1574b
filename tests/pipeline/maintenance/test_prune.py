"""pipeline/maintenance/prune.py: what lies aside is counted, and goes in one rename, while no other run is at work."""

import fcntl
import shutil

import pytest

from manifests.aside import ASIDE, UNDER_WAY, Group
from manifests.files import TEMPORARY, write_bytes
from manifests.journal import FileRecord
from pipeline.maintenance.prune import Kept, prune, set_aside_in, under_way
from pipeline.recipes.schema import RecipeError


def put(root, place, step, size):
    folder = root / place / step
    write_bytes(folder / "abc-x.parquet", b"x" * size)
    group = Group(folder, "abc", step, "m", 7, "abc-x.parquet", (FileRecord.of(folder, folder / "abc-x.parquet"),))
    group.write()
    return Kept(step, 7, 2, size + group.path.stat().st_size)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "manifests" / "journal").mkdir(parents=True)
    return tmp_path


def test_steps_stand_in_the_order_of_the_chain_with_rows_files_and_bytes(root):
    kept = [put(root, ASIDE, step, size) for step, size in (("encode", 10), ("score", 20), ("fetch", 30))]
    assert set_aside_in(root) == kept[::-1]
    assert under_way(root) == []
    waiting = put(root, UNDER_WAY, "score", 5)
    assert under_way(root) == [waiting]


def test_one_step_goes_or_all_and_what_is_under_way_stays(root):
    fetch, score, t5 = (put(root, ASIDE, step, 10) for step in ("fetch", "score", "t5"))
    put(root, UNDER_WAY, "score", 5)
    assert prune(root, ["score"]) == [score]
    assert set_aside_in(root) == [fetch, t5]
    assert prune(root, []) == [fetch, t5]
    assert not (root / ASIDE).exists()
    assert len(under_way(root)) == 1
    assert prune(root, []) == []


def test_a_step_without_anything_is_refused_before_any_work(root):
    put(root, ASIDE, "score", 10)
    with pytest.raises(RecipeError, match="--step 'caption': nothing of it is set aside; steps with something: score"):
        prune(root, ["score", "caption"])
    assert len(set_aside_in(root)) == 1


def test_a_run_that_is_at_work_keeps_it(root):
    put(root, ASIDE, "score", 10)
    with open(root / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="held by another run"):
            prune(root, [])
    assert len(set_aside_in(root)) == 1


def test_a_kill_in_the_middle_leaves_a_temporary_name_that_the_next_start_sweeps(root, monkeypatch):
    put(root, ASIDE, "score", 10)
    put(root, ASIDE, "fetch", 10)

    real = shutil.rmtree

    def killed(path, **options):
        if "prune-" in str(path):
            raise KeyboardInterrupt
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(root, [])
    monkeypatch.undo()
    assert [kept.step for kept in set_aside_in(root)] == ["score"]
    assert len(list(root.glob(f"{TEMPORARY}prune-*"))) == 1
    prune(root, [])
    assert list(root.glob(f"{TEMPORARY}*")) == []
