"""pipeline/maintenance/repair/session.py: what a repair notes of each file, and what it refuses to begin."""

import errno
import json
from dataclasses import replace

import pytest

from manifests.findings import Finding
from manifests.manifest import Manifest
from manifests.shard_table import shard_table
from pipeline.execution.step import Runtime, note_step
from pipeline.maintenance.repair import session
from pipeline.maintenance.repair.session import (
    Refused,
    Repair,
    RepairOptions,
    same_settings,
    same_versions,
    stage_of,
)
from tests.support.stage_steps import Numbers, recipe_at


def finding(path, step="", kind="damaged"):
    return Finding(path, kind, "?", step, "00000")


FOUND = (
    finding("pairs/0.tar", "fetch"),
    finding("scores/0.parquet", "score", "missing"),
    finding("pairs/mine.txt", "fetch", "foreign"),
    finding("manifests/plan/encode/plan.json", "encode"),
    finding("manifests/input.json"),
)


@pytest.fixture
def work(tmp_path):
    """Return a repair that has found five files, of a run whose copy holds two of them."""
    root, copy = tmp_path / "run", tmp_path / "copy"
    for folder in (root, copy):
        for name in ("pairs/0.tar", "scores/0.parquet"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(folder.name)
    found = {entry.path: entry for entry in FOUND}
    return Repair(root, copy, recipe_at(root), Runtime(), RepairOptions(), found)


def paths(findings):
    return [entry.path for entry in findings]


def test_what_is_open_is_damaged_or_missing_and_not_dealt_with(work):
    tar, scores, _, plan, inputs = paths(FOUND)
    assert paths(work.open()) == [tar, scores, plan, inputs]
    assert paths(work.open("fetch")) == [tar]
    work.repaired[tar], work.left[plan] = "so", "why"
    assert paths(work.open()) == [scores, inputs]
    assert [work.needs(name) for name in (tar, scores, "pairs/mine.txt", "elsewhere")] == [False, True, False, False]


def test_a_file_that_is_given_takes_the_damaged_ones_place(work):
    work.give("pairs/0.tar", "fetch made it again")
    assert (work.root / "pairs" / "0.tar").read_text() == "copy"
    assert (work.repaired, work.left) == ({"pairs/0.tar": "fetch made it again"}, {})


def test_what_stands_in_the_way_of_a_file_is_said(work, monkeypatch):
    def move(*_):
        """Find the folder read-only."""
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(session, "move_over", move)
    work.give("pairs/0.tar", "fetch made it again")
    assert work.repaired == {}
    assert work.left == {"pairs/0.tar": "made again, but it cannot be put in its place (Read-only file system)"}


def test_a_full_disk_is_no_fault_of_one_file(work, monkeypatch):
    def move(*_):
        """Find the disk full."""
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(session, "move_over", move)
    with pytest.raises(OSError, match="No space left on device"):
        work.give("pairs/0.tar", "fetch made it again")
    assert (work.repaired, work.left) == ({}, {})


def test_the_first_reason_to_leave_a_file_stays(work):
    work.repaired["scores/0.parquet"] = "so"
    work.leave(["pairs/0.tar", "scores/0.parquet", "elsewhere"], "first")
    work.leave(["pairs/0.tar"], "second")
    assert work.left == {"pairs/0.tar": "first"}


def test_the_copy_leads_to_what_the_run_holds(work):
    (work.copy / "scores" / "1.parquet").write_text("made on the way")
    (work.root / "scores" / "2.parquet").write_text("run")
    work.repaired["scores/0.parquet"] = "so"
    work.restore(["pairs/0.tar", "scores/0.parquet", "scores/1.parquet", "scores/2.parquet"])
    assert not (work.copy / "pairs" / "0.tar").exists()  # found damaged, and not repaired
    assert not (work.copy / "scores" / "1.parquet").exists()  # the run has none
    assert [(work.copy / "scores" / f"{n}.parquet").read_text() for n in (0, 2)] == ["run", "run"]


def test_a_sha256_is_of_the_run_as_it_is(work):
    (work.root / "a.txt").write_text("abc")
    assert work.sha256("a.txt") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert work.sha256("nowhere") == ""


def test_a_step_is_built_on_the_input_the_steps_before_it_and_its_own_plan(work):
    assert [work.behind(step) for step in ("select", "encode")] == ["", ""]
    work.left["manifests/plan/encode/plan.json"] = "why"
    assert [work.behind(step) for step in ("score", "encode")] == ["", "manifests/plan/encode/plan.json"]
    work.left["pairs/0.tar"] = "why"
    assert [work.behind(step) for step in ("fetch", "score")] == ["", "pairs/0.tar"]
    work.left.clear()
    work.left["pairs/mine.txt"] = "foreign files are built on by nobody"
    assert work.behind("score") == ""
    work.left["manifests/input.json"] = "why"
    assert work.behind("select") == "manifests/input.json"


def test_an_errors_line_names_the_run_and_not_its_copy(work):
    assert work.line(OSError(2, "No such file", f"{work.copy}/a")) == f"[Errno 2] No such file: '{work.root}/a'"
    assert work.line(ValueError("first\nsecond")) == "first"
    assert work.line(ValueError("")) == "ValueError: "
    assert work.line(RuntimeError("it fell over")) == "RuntimeError: it fell over"
    assert work.line(ValueError("x" * 400)) == "x" * 300
    with pytest.raises(OSError, match="No space left"):
        work.line(OSError(errno.ENOSPC, "No space left on device"))


def test_every_step_has_its_stage():
    stages = [stage_of(step) for step in ("select", "decide", "caption", "pack")]
    assert stages == ["filter", "filter", "caption", "pretokenize"]


def test_settings_must_be_those_that_the_step_was_done_with(tmp_path):
    before, other = Numbers(recipe_at(tmp_path), tmp_path), Numbers(recipe_at(tmp_path, seed=7), tmp_path)
    same_settings(before)  # without a note the keys of its shards tell
    note_step(before)
    same_settings(before)
    with pytest.raises(Refused, match=r"numbers was made with other settings than this recipe's \(seed: got 7, want"):
        same_settings(other)


def test_weights_must_be_those_that_the_step_was_done_with(tmp_path, monkeypatch):
    note_step(Numbers(recipe_at(tmp_path), tmp_path))
    monkeypatch.setattr(Numbers, "weights", lambda step: [])
    with pytest.raises(Refused, match=r"numbers was made with other settings .*\(weights or version: key [0-9a-f]{16}"):
        same_settings(Numbers(recipe_at(tmp_path), tmp_path))


def test_versions_must_be_those_of_the_manifest(monkeypatch):
    manifest = Manifest("filter", "", [], [], 0, 0, {}, shard_table({}), [], {}, {"python": "3.11", "numpy": "2.0"})
    monkeypatch.setattr(session, "versions", lambda: {"python": "3.11", "numpy": "2.0", "torch": "3"})
    same_versions("filter", None)
    same_versions("filter", manifest)
    with pytest.raises(Refused, match=r"filter was made with other versions \(numpy: got 2\.0, wanted 1\.0\); install"):
        same_versions("filter", replace(manifest, versions={"python": "3.11", "numpy": "1.0"}))
    with pytest.raises(Refused, match=r"\(cuda: got None, wanted 12\)"):
        same_versions("filter", replace(manifest, versions=json.loads('{"cuda": "12"}')))
