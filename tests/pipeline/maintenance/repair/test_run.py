"""Repair makes damaged files again byte for byte, takes nothing else in their place, and names what it cannot
repair."""

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.manifest import Manifest
from manifests.verify import verify_run
from pipeline.cli import app
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair import run as repair_module
from pipeline.maintenance.repair.run import STAGE_STEPS, RepairOptions, repair_run
from pipeline.maintenance.repair.session import Refused
from tests.support.commands import pipeline_here, pipeline_with_workers
from tests.support.damages import DAMAGES
from tests.support.keep_runs import differing, files_of, one_of_each_kind, without_beam
from tests.support.object_store import in_memory, put_run


def repair(root, *sets, **options):
    with without_beam():
        return repair_run(root, recipe_of_run(root, sets=sets), Runtime(), RepairOptions(**options))[1]


def pictures(web):
    return sum(hit.endswith(".jpg") for hit in web.hits)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files_of(root)}


def test_a_whole_run_needs_nothing(run, made):
    assert repair(run) is None
    assert differing(run, made) == []


OUTPUTS = ("ledger", "pairs", "scores", "dedup", "captions", "codes")


@pytest.mark.parametrize("shift", [0, 4])
def test_damaged_outputs_of_every_step_are_made_again_byte_for_byte(run, made, web, shift):
    """One file of each kind, each damaged in another way; two shifts walk through the nine."""
    hit = [path for path in one_of_each_kind(run) if path.relative_to(run).parts[0] in OUTPUTS]
    for number, path in enumerate(hit):
        list(DAMAGES.values())[(number + shift) % len(DAMAGES)](path)
    before = pictures(web)
    work = repair(run)
    assert work.left == {}
    assert set(work.repaired) == {path.relative_to(run).as_posix() for path in hit}
    assert differing(run, made) == []
    assert not verify_run(run, STAGE_STEPS).findings
    assert pictures(web) - before <= 8  # the pictures of one shard at most


def test_missing_files_are_made_again(run, made):
    hit = [path for path in one_of_each_kind(run) if path.relative_to(run).parts[0] in OUTPUTS]
    for path in hit:
        path.unlink()
    assert repair(run).left == {}
    assert differing(run, made) == []


def test_records_are_made_again_from_one_another(run, made):
    for name in (
        "recipe.toml",
        "manifests/filter.json",
        "manifests/caption.json",
        "manifests/pretokenize.json",
        "manifests/input.json",
    ):
        DAMAGES["empty" if name.endswith("caption.json") else "body bit flip"](run / name)
    for path in one_of_each_kind(run / "manifests" / "plan"):
        DAMAGES["cut mid-body"](path)
    work = repair(run)
    assert work.left == {}
    skip = {"manifests/input.json"}  # it notes when the file system saw a change
    assert set(differing(run, made)) <= skip
    assert not verify_run(run, STAGE_STEPS).wrong


def test_damaged_journals_are_made_again_where_the_manifest_lists_the_shard(run, made):
    for path in one_of_each_kind(run / "manifests" / "journal"):
        DAMAGES["header bit flip"](path)
    assert repair(run).left == {}
    assert differing(run, made) == []


def test_intact_pictures_of_a_damaged_tar_are_saved(run, made, web):
    DAMAGES["body bit flip"](run / "pairs" / "00000.tar")  # in the second sample
    before = pictures(web)
    assert list(repair(run).repaired) == ["pairs/00000.tar"]
    assert pictures(web) - before == 1
    assert differing(run, made) == []


def test_a_picture_that_is_another_now_is_named_and_nothing_is_dropped(run, monkeypatch):
    from filters.images import decode as images

    path = run / "pairs" / "00000.tar"
    DAMAGES["body bit flip"](path)
    damaged = path.read_bytes()
    store = images.store
    monkeypatch.setattr(
        "pipeline.steps.fetch.worker.store", lambda data, limits: replace(store(data, limits), jpeg=b"another picture")
    )
    work = repair(run)
    assert work.repaired == {}
    assert "http://pictures.test/1.jpg (another picture now)" in work.left["pairs/00000.tar"]
    assert path.read_bytes() == damaged
    assert len(verify_run(run, STAGE_STEPS).wrong) == 1


def test_other_settings_are_refused_before_any_work(run):
    DAMAGES["empty"](run / "codes" / "pretrain" / "00000.tar")
    before = contents(run)
    with pytest.raises(Refused, match=r"pack was made with other settings than this recipe's \(seed: got 7, wanted 0"):
        repair(run, "pretokenize.seed=7")
    assert contents(run) == before
    assert repair(run, "tier.pretrain.rules.aspect.max=3.0").left == {}  # no damaged step reads it


def test_other_versions_are_refused_unless_asked_for(run, made, monkeypatch):
    DAMAGES["empty"](run / "scores" / "00000.parquet")
    monkeypatch.setattr("pipeline.maintenance.repair.session.versions", lambda: {"python": "2.7"})
    with pytest.raises(Refused, match=r"score|filter was made with other versions \(python: got 2\.7, wanted 3"):
        repair(run)
    assert repair(run, other_versions=True).left == {}
    assert differing(run, made) == []


def test_other_bytes_are_never_taken(run, monkeypatch):
    from pipeline.steps.pack import PackWorker

    DAMAGES["cut mid-body"](run / "codes" / "pretrain" / "00000.tar")
    before = contents(run)
    real = PackWorker.run

    def other(self, unit, in_flight):
        monkeypatch.setattr("pipeline.steps.pack.sample_parts", lambda *args, **kwargs: {"json": b"{}"})
        return real(self, unit, in_flight)

    monkeypatch.setattr(PackWorker, "run", other)
    work = repair(run)
    assert "made again it has sha256" in work.left["codes/pretrain/00000.tar"]
    assert contents(run) == before


def test_a_kill_half_way_harms_nothing(run, made, monkeypatch):
    hit = [run / "scores" / "00000.parquet", run / "codes" / "pretrain" / "00000.tar"]
    for path in hit:
        DAMAGES["cut mid-body"](path)
    before = contents(run)
    real = os.replace

    def stop(source, target):
        if Path(target).name == "00000.tar" and ".tmp-repair" not in str(Path(target).parent):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("manifests.working_copy.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        repair(run)
    monkeypatch.undo()
    after = contents(run)
    assert [name for name in before if after[name] != before[name]] == ["scores/00000.parquet"]
    assert list(repair(run).repaired) == ["codes/pretrain/00000.tar"]
    assert differing(run, made) == []


@pytest.mark.slow
def test_the_command_repairs_with_workers_and_says_what_it_did(run, made):
    DAMAGES["cut mid-header"](run / "pairs" / "00000.tar")
    (run / "scores" / "00001.parquet").unlink()
    done = pipeline_with_workers("repair", run, "--workers", "1")
    assert done.exit_code == 0, done.output
    assert "repaired  pairs/00000.tar: cut: " in done.stdout
    assert f"{run}: 2 files repaired; whole again" in done.stdout
    assert differing(run, made) == []
    (run / "stray").write_text("?")
    done = pipeline_here("repair", run)
    assert done.exit_code == 1
    assert "left      stray: foreign" in done.stdout
    (run / "stray").unlink()
    (run / "codes" / "pretrain" / "00000.tar").write_bytes(b"")
    done = pipeline_here("repair", run, "--set", "pretokenize.seed=7")
    assert (done.exit_code, "got 7, wanted 0" in done.stderr) == (2, True)
    assert pipeline_here("repair", run / "codes").exit_code == 2


def test_foreign_files_and_checkpoints_are_named_and_stay(run):
    (run / "pairs" / "notes.txt").write_text("mine")
    folder = run / "train" / "pretrain" / "checkpoints" / "0000005"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{")
    work = repair(run)
    assert "deletes nothing" in work.left["pairs/notes.txt"]
    assert "checkpoint" in work.left["train/pretrain/checkpoints/0000005/state.json"]
    assert (run / "pairs" / "notes.txt").read_text() == "mine"


def test_after_repair_the_digests_are_as_before(run, made):
    for name in ("dedup/00000.parquet", "ledger/final/00000.parquet", "manifests/filter.json"):
        DAMAGES["hole of zeros"](run / name)
    repair(run)
    for stage in STAGE_STEPS:
        paths = [root / "manifests" / f"{stage}.json" for root in (run, made)]
        assert Manifest.read(paths[0]).digest == Manifest.read(paths[1]).digest


def lead_away(path, place):
    """Put a file or folder elsewhere and a link, which is relative, in its place."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.move(path, place / path.name)
    path.symlink_to(os.path.relpath(place / path.name, path.parent))


@pytest.mark.parametrize("names", [("pairs", "codes"), ("pairs/00000.tar", "pairs/00001.tar")])
def test_files_behind_links_are_repaired_where_they_lie(run, made, tmp_path, names):
    for name in names:
        lead_away(run / name, tmp_path / "big")
    damaged = ["pairs/00000.tar", *(["codes/pretrain/00000.tar"] if "codes" in names else [])]
    for name in damaged:
        (run / name).write_bytes((run / name).read_bytes()[:1000])
    work = repair(run)
    assert (sorted(work.repaired), work.left) == (sorted(damaged), {})
    assert all((run / name).is_symlink() for name in names)
    assert [name for name in damaged if (run / name).read_bytes() != (made / name).read_bytes()] == []
    assert repair(run) is None


def test_folders_that_no_one_may_write_end_with_one_message(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(run / ".lock"))

    monkeypatch.setattr(repair_module, "locked", refuse)
    done = CliRunner().invoke(app, ["repair", str(run)])
    assert (done.exit_code, "error: " in done.output, ".lock" in done.output) == (1, True, True), done.output
    for command in ("verify", "repair", "remove"):
        done = CliRunner().invoke(app, [command, ""])
        assert (done.exit_code, " is empty; wanted " in done.output) == (2, True), done.output


def test_in_a_store_the_same_is_made_again_and_the_same_is_left(run):
    paths = [path for path in one_of_each_kind(run) if path.name not in (".run-token", "recipe.toml")]
    for path, damage in zip(paths, itertools.cycle([DAMAGES["cut mid-body"], Path.unlink, DAMAGES["body bit flip"]])):
        damage(path)
    root = put_run(run, in_memory())
    here, there = repair(run), repair(root)
    assert (here is None, there is None) == (False, False)
    assert len(here.repaired) > 15
    assert (sorted(there.repaired), sorted(there.left)) == (sorted(here.repaired), sorted(here.left))
    theirs = {path.relative_to(run).as_posix(): path.read_bytes() for path in files_of(run)}
    mine = {path.relative_to(root).as_posix(): path.read_bytes() for path in files_of(root)}
    assert [name for name in theirs if mine.get(name) != theirs[name]] == []
    assert [name for name in {*mine} - {*theirs} if not name.startswith((".lease/", ".run-token"))] == []
