"""Every record of a run is read; each that is damaged, misplaced or missing is a finding with the file's name."""

import json

import pyarrow as pa
import pytest

from manifests.aside import ASIDE, Group
from manifests.files import write_bytes, write_json
from manifests.findings import Finding, Records
from manifests.journal import STEP, FileRecord, Journal, ShardRecord
from manifests.manifest import Manifest
from manifests.plans import write_plan
from manifests.recipe_file import headed
from manifests.records import read_records, shard_entries
from manifests.shard_table import from_entries

FILE = FileRecord("scores/00000.parquet", "ab", 7)
ENTRY = {"step": "score", "shard": "00000", "path": FILE.path, "sha256": "ab", "bytes": 7, "rows_in": 3, "rows_out": 3}
STAGES = {"filter": ["score"]}
ALWAYS = ("digests.json", "input.json", "recipe.json")


@pytest.fixture
def root(tmp_path):
    """Return a run of a shard of score, a plan of fetch, a manifest and the records that every run has."""
    Journal(tmp_path, "score").record(ShardRecord("00000", "k", (FILE,), 3, 3))
    write_plan(tmp_path, "fetch", [("00000", pa.table({"n": [1]})), ("00001", pa.table({"n": [2]}))])
    Manifest("filter", "r", [], [], 3, 3, {}, from_entries([ENTRY]), [], {}, {}).write(tmp_path)
    for name, content in zip(ALWAYS, ({"stages": {}}, {"files": []}, {"recipe": {"seed": 1}}), strict=True):
        write_json(tmp_path / "manifests" / name, content, sealed=True)
    (tmp_path / "recipe.toml").write_bytes(headed(b"seed = 1\n"))
    return tmp_path


def findings(root):
    return [(finding.path, finding.kind, finding.says) for finding in read_records(root, STAGES).findings]


def test_whole_records_claim_their_files(root):
    records = read_records(root, STAGES)
    assert records.findings == []
    claims = {path: (claim.by, claim.step, claim.shard, claim.file.bytes) for path, claim in records.claims.items()}
    assert claims == {
        "scores/00000.parquet": ("its journal", "score", "00000", 7),
        "manifests/plan/fetch/00000.parquet": ("its plan", "fetch", "", -1),
        "manifests/plan/fetch/00001.parquet": ("its plan", "fetch", "", -1),
    }
    assert records.manifests["filter"].kept == 3
    assert [records.planned(step) for step in ("fetch", "score", "dedup", "pack")] == [
        {"00000", "00001"},
        {"00000", "00001"},
        {"00000"},
        None,
    ]
    assert list(shard_entries(records.manifests["filter"], "score")) == [
        ("00000", "scores/00000.parquet", "ab", 7, 3, 3)
    ]
    assert list(shard_entries(records.manifests["filter"], "fetch")) == []


def test_a_manifest_claims_what_no_journal_does(root):
    (root / "manifests" / "journal" / "score" / "00000.json").unlink()
    claim = read_records(root, STAGES).claims["scores/00000.parquet"]
    assert (claim.by, claim.step, claim.shard) == ("manifests/filter.json", "score", "00000")


def test_an_empty_folder_lacks_nothing_that_is_read_here(tmp_path):
    assert read_records(tmp_path, STAGES) == Records(tmp_path, known={"manifests/filter.json", "recipe.toml"})


@pytest.mark.parametrize(
    "name",
    [
        *(f"manifests/{name}" for name in (*ALWAYS, "filter.json")),
        "manifests/journal/score/00000.json",
        "manifests/plan/fetch/plan.json",
    ],
)
@pytest.mark.parametrize(("cut", "says"), [(0, "empty"), (20, "not JSON")])
def test_a_cut_record_is_damaged(root, name, cut, says):
    (root / name).write_bytes((root / name).read_bytes()[:cut])
    expected = [finding for finding in findings(root) if finding[0] == name]
    assert [(kind, text.partition(" (")[0]) for _, kind, text in expected] == [("damaged", says)]


def test_bytes_that_mean_the_same_are_not_those_that_were_written(root):
    path = root / "manifests" / "input.json"
    path.write_text(path.read_text().replace("\n", "\n "))
    assert findings(root) == [
        (
            "manifests/input.json",
            "damaged",
            "its content can be read, but its bytes are not those that were written",
        )
    ]


def test_a_record_without_its_seal_proves_nothing(root):
    write_json(root / "manifests" / "input.json", {"files": []})
    assert findings(root) == [
        ("manifests/input.json", "damaged", "has no seal: nothing proves that it is as it was written")
    ]


def test_whole_records_in_the_wrong_place(root):
    another = "whole in itself, but another record than the one that belongs here"
    manifests = root / "manifests"
    (manifests / "digests.json").write_bytes((manifests / "input.json").read_bytes())
    write_json(manifests / "plan" / "fetch" / "plan.json", {"step": "pack", "files": {}}, sealed=True)
    write_json(manifests / "journal" / "score" / STEP, {"own_key": "a", "settings": {}, "step": "t5"}, sealed=True)
    assert findings(root) == [
        ("manifests/journal/score/step.json", "damaged", another),
        ("manifests/digests.json", "damaged", another),
        ("manifests/plan/fetch/plan.json", "damaged", another),
    ]


def test_a_journal_entry_of_another_shard_or_file(root):
    folder = root / "manifests" / "journal" / "score"
    (folder / "00000.json").rename(folder / "00001.json")
    Journal(root, "score").record(ShardRecord("00000", "k", (FileRecord("scores/00002.parquet", "ab", 7),), 3, 3))
    assert findings(root) == [
        (
            "manifests/journal/score/00000.json",
            "damaged",
            "names scores/00002.parquet: not that of score 00000",
        ),
        (
            "manifests/journal/score/00001.json",
            "damaged",
            "names scores/00000.parquet: not that of score 00001",
        ),
    ]


def test_a_plan_that_is_lost_and_a_table_that_no_plan_names(root):
    Journal(root, "pack").record(ShardRecord("t-00000", "k", (), 0, 0))
    (root / "manifests" / "plan" / "fetch" / "00002.parquet").write_bytes(b"")
    assert findings(root) == [
        ("manifests/plan/fetch/00002.parquet", "foreign", "its plan does not name it"),
        ("manifests/plan/pack/plan.json", "missing", "not there"),
    ]


def test_recipes(root):
    (root / "recipe.toml").write_bytes(headed(b"seed = 2\n"))
    assert findings(root) == [("recipe.toml", "stale", "not the recipe of manifests/recipe.json: run the stage again")]
    (root / "recipe.toml").write_bytes(b"seed = 1\n")
    ((path, kind, says),) = findings(root)
    assert (path, kind) == ("recipe.toml", "damaged")
    assert says.startswith("not the text that its first line names the sha256 of")
    (root / "recipe.toml").unlink()
    assert findings(root) == [("recipe.toml", "missing", "not there")]


def test_checkpoints_name_their_files_and_the_pointer_names_a_checkpoint(root):
    folder = root / "train" / "one" / "checkpoints"
    write_json(folder / "00000010" / "state.json", {"sha256": {"model.pt": "cd"}}, sealed=True)
    (folder / "latest").write_text("00000010\n")
    records = read_records(root, STAGES)
    assert records.findings == []
    claim = records.claims["train/one/checkpoints/00000010/model.pt"]
    assert (claim.file.sha256, claim.by, claim.step, claim.shard) == ("cd", "its state.json", "train", "00000010")
    (folder / "latest").write_text("00000020")
    assert findings(root) == [("train/one/checkpoints/latest", "damaged", "names no checkpoint beside it ('00000020')")]


def test_tables_made_of_the_input_are_claimed(root):
    entry = {"files": [{"made": ["inputs/a.parquet", "ef", 9]}, {"path": "b.parquet"}]}
    write_json(root / "manifests" / "input.json", entry, sealed=True)
    claim = read_records(root, STAGES).claims["inputs/a.parquet"]
    assert (claim.by, claim.file.sha256, claim.file.bytes) == ("manifests/input.json", "ef", 9)


def test_json_of_others_is_not_known(root):
    (root / "manifests" / "notes.json").write_text(json.dumps({"mine": 1}))
    records = read_records(root, STAGES)
    assert records.findings == []
    assert "manifests/notes.json" not in records.known
    assert "manifests/input.json" in records.known


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        *((kind, True) for kind in ("missing", "damaged", "foreign", "stale")),
        *((kind, False) for kind in ("leftover", "unproved", "unfinished")),
    ],
)
def test_notes_are_no_faults(tmp_path, kind, wrong):
    records = Records(tmp_path)
    records.find(tmp_path / "a" / "b", kind, "so", "fetch", "00000")
    assert records.findings == [Finding("a/b", kind, "so", "fetch", "00000")]
    assert records.findings[0].wrong is wrong
    assert records.found("a/b") is wrong
    assert records.found("a") is False


def put_aside(root):
    folder = root / ASIDE / "score"
    write_bytes(folder / "abc-scores.parquet", b"12345")
    file = FileRecord.of(folder, folder / "abc-scores.parquet")
    Group(folder, "abc", "score", "model", 2, "abc-scores.parquet", (file,)).write()
    return folder


def test_what_was_set_aside_is_claimed_by_its_own_record(root):
    put_aside(root)
    records = read_records(root, STAGES)
    claim = records.claims["aside/score/abc-scores.parquet"]
    assert (claim.by, claim.step, claim.shard, claim.file.bytes) == ("its record", "aside", "abc", 5)
    assert "aside/score/abc.json" in records.known
    assert records.findings == []


@pytest.mark.parametrize(("old", "new"), [('"rows": 2', '"rows": 3'), ('"abc-scores.parquet"', '"other.parquet"')])
def test_a_record_of_what_was_set_aside_that_is_damaged_is_found(root, old, new):
    path = put_aside(root) / "abc.json"
    path.write_text(path.read_text().replace(old, new))
    found = read_records(root, STAGES).findings
    assert [(finding.path, finding.kind, finding.step, finding.shard) for finding in found] == [
        ("aside/score/abc.json", "damaged", "aside", "abc")
    ]
