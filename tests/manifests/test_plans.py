"""A plan is one table a shard and a note that names the sha256 of each; an earlier plan's tables go."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.plans import note_plan, plan_folder, write_plan


def test_a_step_has_a_folder_of_its_own(tmp_path):
    assert plan_folder(tmp_path, "t5") == tmp_path / "manifests" / "plan" / "t5"


def test_tables_are_written_and_noted_with_their_sha256(tmp_path):
    planned = write_plan(tmp_path, "fetch", [("00001", pa.table({"n": [1, 2]})), ("00000", pa.table({"n": [3]}))])
    folder = tmp_path / "manifests" / "plan" / "fetch"
    digests = {
        name: hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest() for name in ("00000", "00001")
    }
    assert planned == [(name, folder / f"{name}.parquet", digests[name]) for name in ("00001", "00000")]
    assert pq.read_table(folder / "00001.parquet").to_pydict() == {"n": [1, 2]}
    note = json.loads((folder / "plan.json").read_text())
    assert note.keys() == {"format", "step", "files", "seal"}
    assert (note["format"], note["step"]) == (1, "fetch")
    assert list(note["files"].items()) == [
        ("00001.parquet", digests["00001"]),
        ("00000.parquet", digests["00000"]),
    ]


def test_tables_of_an_earlier_plan_go(tmp_path):
    write_plan(tmp_path, "pack", [("a", pa.table({"n": [1]})), ("b", pa.table({"n": [2]}))])
    write_plan(tmp_path, "t5", [("a", pa.table({"n": [1]}))])
    write_plan(tmp_path, "pack", [("b", pa.table({"n": [5]}))])
    folder = tmp_path / "manifests" / "plan"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "pack/b.parquet",
        "pack/plan.json",
        "t5/a.parquet",
        "t5/plan.json",
    ]
    assert pq.read_table(folder / "pack" / "b.parquet").to_pydict() == {"n": [5]}


def test_an_empty_plan_names_no_table(tmp_path):
    assert write_plan(tmp_path, "encode", []) == []
    note = json.loads((tmp_path / "manifests" / "plan" / "encode" / "plan.json").read_text())
    assert note["files"] == {}


def test_a_note_alone_says_whose_it_is(tmp_path):
    note_plan(tmp_path / "caption", {"00000.parquet": "ab"})
    note = json.loads((tmp_path / "caption" / "plan.json").read_text())
    assert (note["step"], note["files"]) == ("caption", {"00000.parquet": "ab"})
