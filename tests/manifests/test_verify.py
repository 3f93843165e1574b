"""Verify finds every damage in every kind of file, whatever is missing or foreign, and records that contradict one
another."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.aside import ASIDE, Group
from manifests.checksums import Watch
from manifests.files import write_json
from manifests.journal import FileRecord
from manifests.shards import index_path, write_shard
from manifests.verify import is_run, look_over, verify_run
from manifests.verify_shards import is_bare, verify_folder
from pipeline.stages.registry import STAGES
from tests.support.commands import pipeline_here
from tests.support.damages import DAMAGES
from tests.support.journals import spread
from tests.support.keep_runs import make_run, one_of_each_kind
from tests.support.paths import ROOT

STEPS = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}
SAMPLES = [(f"k{n:02d}", {"codes.npy": bytes([n + 1]) * 700, "json": b"{}" * (n + 1)}) for n in range(10)]


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """Return a copy of a whole run; what a test damages it puts back."""
    return shutil.copytree(made, tmp_path_factory.mktemp("verify") / "run")


def wrong(root):
    return {finding.path: finding for finding in verify_run(root, STEPS, jobs=1).wrong}


def verify(*args):
    command = [sys.executable, "-m", "pipeline.cli", "verify", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


def test_a_whole_run_is_whole_and_says_how_much_was_checked(run):
    report = verify_run(run, STEPS)
    assert (report.findings, report.said) == ((), ())
    assert report.bytes > 100_000
    assert is_run(run)


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_each_damage_is_found_in_every_kind_of_file(run, damage):
    kinds = one_of_each_kind(run)
    assert len(kinds) > 25
    for path in kinds:
        data = path.read_bytes()
        DAMAGES.get(damage, Path.unlink)(path)
        assert not path.exists() or path.read_bytes() != data
        found = wrong(run)
        path.write_bytes(data)
        name = path.relative_to(run).as_posix()
        assert name in found, (damage, name, sorted(found))
    assert not wrong(run)


def test_what_was_set_aside_is_held_against_its_own_records(run):
    folder = run / ASIDE / "score"
    shutil.copytree(run / "scores", folder)
    for path in sorted(folder.glob("*.parquet")):
        path.rename(folder / f"{path.stem}-scores.parquet")
        file = FileRecord.of(folder, folder / f"{path.stem}-scores.parquet")
        Group(folder, path.stem, "score", "model", 1, file.path, (file,)).write()
    report = verify_run(run, STEPS)
    tables = sorted(folder.glob("*.parquet"))
    size = sum(path.stat().st_size for path in tables)
    assert report.findings == ()
    assert report.said == (f"aside/: 5 files, {size:,} bytes that fell out of plans: pipeline prune shows them",)
    data = tables[0].read_bytes()
    tables[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    tables[1].unlink()
    (folder / f"{tables[2].stem.removesuffix('-scores')}.json").unlink()
    (folder / "notes.txt").write_text("mine")
    names = [path.relative_to(run).as_posix() for path in tables]
    found = {finding.path: finding.kind for finding in verify_run(run, STEPS).findings}
    shutil.rmtree(run / ASIDE)
    assert found == {
        names[0]: "damaged",
        names[1]: "missing",
        names[2]: "leftover",
        "aside/score/notes.txt": "foreign",
    }


SAYS = {
    "cut at a sample boundary": "cut at byte 2560, between samples",
    "cut between members": "cut at byte 1024, between members of sample",
    "cut mid-header": "in the header of",
    "header bit flip": "header of member",
    "hole of zeros": "is damaged",
    "body bit flip": "its CRC-32 is not the index's",
    "all zeros": "zeros alone",
    "cut mid-body": "in the body of",
    "empty": "empty, 40960 bytes wanted",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tar_says_which_member_and_where(run, damage):
    for folder in ("codes/pretrain", "pairs"):
        path = run / folder / "00000.tar"
        data = path.read_bytes()
        DAMAGES[damage](path)
        found = wrong(run)
        path.write_bytes(data)
        assert list(found) == [f"{folder}/00000.tar"]
        if folder != "pairs":
            assert SAYS[damage] in found[f"{folder}/00000.tar"].says


def test_foreign_files_are_named_and_leftovers_are_told_apart(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    root = tmp_path / "run"
    for name in (
        "pairs/notes.txt",
        "codes/pretrain/99999.tar",
        "manifests/journal/fetch/stray.txt",
        "x",
        "manifests/mine.json",
    ):
        (root / name).write_text("{}")
    (root / "pairs" / ".tmp-host-1-abc-00000.tar").write_text("half")
    (root / "logs" / "anything").write_text("free")
    (root / ".shuffle" / "first").mkdir(parents=True)
    (root / ".shuffle" / "first" / "0.slices").write_text("on their way")
    report = verify_run(root, STEPS)
    kinds = {finding.path: finding.kind for finding in report.findings}
    assert kinds == {
        "pairs/notes.txt": "foreign",
        "codes/pretrain/99999.tar": "foreign",
        "manifests/journal/fetch/stray.txt": "foreign",
        "x": "foreign",
        "manifests/mine.json": "foreign",
        "pairs/.tmp-host-1-abc-00000.tar": "leftover",
        ".shuffle": "leftover",
    }
    assert len(report.wrong) == 5


def test_an_unfinished_run_says_which_stages_have_no_manifest(tmp_path, web):
    root = make_run(tmp_path, web, "filter")
    report = verify_run(root, STEPS)
    assert not report.wrong
    assert report.said == ("caption: no manifest: it has not run", "pretokenize: no manifest: it has not run")
    for name in ("filter.json", "digests.json"):
        (root / "manifests" / name).unlink()
    report = verify_run(root, STEPS)
    assert not report.wrong
    assert report.said[0].startswith("filter: no manifest: unfinished, ")


def test_records_that_contradict_one_another(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    root = spread(tmp_path / "run")
    path = root / "manifests" / "journal" / "score" / "00000.json"
    entry = json.loads(path.read_text())
    del entry["seal"]
    write_json(path, {**entry, "rows_in": entry["rows_in"] + 1, "rows_out": entry["rows_out"] + 1}, sealed=True)
    found = wrong(root)
    assert list(found) == ["manifests/filter.json"]
    assert "other files than the journal of score for 1 shards, such as 00000" in found["manifests/filter.json"].says


def test_after_a_kill_between_plans_the_cure_is_said_of_what_the_manifest_alone_names(run, tmp_path):
    """The journal of select has moved on, and the first shard of the former plan is gone from fetch."""
    root = spread(shutil.copytree(run, tmp_path / "run"))
    journal = root / "manifests" / "journal"
    gone = json.loads((journal / "fetch" / "00000.json").read_text())
    for name in ("manifests/journal/fetch/00000.json", *(file["path"] for file in gone["files"])):
        (root / name).unlink()
    cure = "; the journal of select was changed since: pipeline run --stage filter ends what was begun"
    lost = [finding for finding in verify_run(root, STEPS).findings if finding.kind == "missing"]
    assert len(lost) > 3
    assert not any("was changed since" in finding.says for finding in lost)  # lost, and no other plan begun
    path = sorted((journal / "select").glob("0*.json"))[0]
    entry = json.loads(path.read_text())
    del entry["seal"]
    write_json(path, {**entry, "rows_in": entry["rows_in"] + 1, "dropped": {"size": 1}}, sealed=True)
    report = verify_run(root, STEPS)
    told = {finding.path: finding.says for finding in report.findings if finding.kind == "missing"}
    by_manifest = {name: says for name, says in told.items() if "though manifests/filter.json " in says}
    assert {"manifests/journal/fetch/00000.json", "pairs/00000.tar"} <= set(by_manifest)
    assert all(says.endswith(cure) for says in by_manifest.values())
    (root / "scores" / "00000.parquet").unlink()  # of which a journal speaks: no run of another plan took it
    (score,) = [finding for finding in look_over(root, STEPS) if finding.path == "scores/00000.parquet"]
    assert score.says == "not there, though its journal names it"


def test_a_stage_made_from_another_parent_is_stale(run, tmp_path):
    from dataclasses import replace

    from manifests.manifest import Manifest

    shutil.copytree(run, tmp_path / "run")
    root = tmp_path / "run"
    manifest = Manifest.read(root / "manifests" / "filter.json")
    replace(manifest, facts={"other": 1}).write(root)
    found = wrong(root)
    assert sorted(found) == ["manifests/caption.json", "manifests/pretokenize.json"]
    assert "made from manifests/filter.json of digest" in found["manifests/caption.json"].says


def test_checkpoints_are_checked_by_their_own_records(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run" / "train" / "pretrain" / "checkpoints" / "0000005"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    import hashlib

    write_json(
        folder / "state.json",
        {"step": 5, "sha256": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}},
        sealed=True,
    )
    (folder.parent / "latest").write_text("0000005\n")
    assert not wrong(tmp_path / "run")
    (folder / "model.safetensors").write_bytes(b"weighty")
    (folder.parent / "latest").write_text("0000007\n")
    assert sorted(wrong(tmp_path / "run")) == [
        "train/pretrain/checkpoints/0000005/model.safetensors",
        "train/pretrain/checkpoints/latest",
    ]


def test_the_command_ends_with_0_1_and_2(run, tmp_path):
    done = verify(run)
    assert (done.returncode, done.stdout.splitlines()[-1].split(";")[0]) == (0, f"{run}: whole")
    shutil.copytree(run / "codes" / "pretrain", tmp_path / "bare")
    (tmp_path / "bare" / "00000.tar").write_bytes(b"")
    done = pipeline_here("verify", tmp_path / "bare", "--jobs", "2")
    assert done.exit_code == 1
    assert "damaged  00000.tar: empty, 40960 bytes wanted" in done.stdout
    (tmp_path / "none").mkdir()
    for folder in ("none", "nowhere"):
        done = pipeline_here("verify", tmp_path / folder)
        assert done.exit_code == 2
        assert "Traceback" not in done.stderr


def test_an_interrupt_stops_the_measuring(run):
    class Impatient(Watch):
        def show(self, last=False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_run(run, STEPS, jobs=2, watch=Impatient())


# a bare folder, as a downloader has it


@pytest.fixture
def bare(tmp_path):
    for number in range(3):
        shift = [(f"{number}{key}", parts) for key, parts in SAMPLES]
        write_shard(tmp_path / "set" / f"{number:05d}.tar", shift, index=True)
    return tmp_path / "set"


def bare_wrong(folder):
    return {finding.path: finding for finding in verify_folder(folder, 1).wrong}


def test_a_bare_folder_is_whole(bare):
    assert is_bare(bare)
    assert not is_run(bare)
    assert verify_folder(bare).findings == ()
    assert verify_folder(bare.parent).findings == ()  # a level above works too


@pytest.mark.parametrize("name", ["00001.tar", "00001.index.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_found_in_a_bare_folder(bare, damage, name):
    DAMAGES[damage](bare / name)
    assert name in bare_wrong(bare)


def test_missing_and_foreign_files_of_a_bare_folder(bare):
    index_path(bare / "00000.tar").unlink()
    (bare / "00002.tar").unlink()
    (bare / "notes.txt").write_text("?")
    found = {path: finding.kind for path, finding in bare_wrong(bare).items()}
    assert found == {"00000.index.json": "missing", "00002.tar": "missing", "notes.txt": "foreign"}
    (bare / "00001.tar").unlink()
    index_path(bare / "00001.tar").unlink()
    assert "its number is left out" in bare_wrong(bare)["00001.tar"].says


def test_samples_that_stand_twice_or_lack_a_member(bare):
    write_shard(bare / "00003.tar", [(f"0{key}", parts) for key, parts in SAMPLES[:2]], index=True)
    lacking = [(key, parts if n != 4 else {"json": b"{}"}) for n, (key, parts) in enumerate(SAMPLES)]
    write_shard(bare / "00004.tar", lacking, index=True)
    write_shard(bare / "00005.tar", [("a", {"json": b"1"}), ("a", {"json": b"2"})], index=True)
    found = {(finding.path, finding.says) for finding in verify_folder(bare, 1).wrong}
    assert found == {
        (".", "2 samples stand in more than one shard or twice in one"),
        ("00004.index.json", "sample k04 lacks codes.npy, which the others have"),
        ("00005.index.json", "member a.json stands in it twice"),
        ("00005.index.json", "1 samples in its members, 2 in its count"),
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_pairs_alone_are_checked_by_their_tables(run, tmp_path, damage):
    shutil.copytree(run / "pairs", tmp_path / "pairs")
    report = verify_folder(tmp_path / "pairs")
    assert not report.wrong
    assert "sha256 of each picture" in report.said[0]
    DAMAGES[damage](tmp_path / "pairs" / "00000.tar")
    assert "00000.tar" in bare_wrong(tmp_path / "pairs")


def test_pairs_that_lack_a_sidecar_or_a_tar(run, tmp_path):
    shutil.copytree(run / "pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "00000_stats.json").unlink()
    (tmp_path / "pairs" / "00001.tar").unlink()
    table = pq.read_table(tmp_path / "pairs" / "00002.parquet")
    pq.write_table(table.slice(1), tmp_path / "pairs" / "00002.parquet")
    assert {"00000_stats.json", "00001.tar", "00002.tar"} <= set(bare_wrong(tmp_path / "pairs"))
    (tmp_path / "pairs" / "00002.parquet").unlink()
    found = {path: finding.kind for path, finding in bare_wrong(tmp_path / "pairs").items() if path.startswith("00002")}
    assert found == {"00002.parquet": "missing"}
