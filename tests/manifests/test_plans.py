"""A plan is one table a shard and a note that names the sha256 of each; an earlier plan's tables go."""

import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import plans
from manifests.files import sweep, write_table
from manifests.journal import FileRecord
from manifests.plans import (
    note_plan,
    plan_digest,
    plan_folder,
    planned_tables,
    put_plan,
    settle_plans,
    standing_plan,
    write_plan,
)
from manifests.records import read_records


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


def tables_of(*numbers: int):
    return ((f"{number:05d}", pa.table({"n": [number]})) for number in numbers)


def content(folder):
    return {path.stem: pq.read_table(path).to_pydict()["n"] for path in sorted(folder.glob("*.parquet"))}


class Killed(BaseException):
    """Stands for a kill: nothing after it is done, no clearing up either."""


@pytest.fixture
def killed_at(monkeypatch):
    """Return a function that ends the process, as it were, at the n-th change that writing a plan makes on disk."""

    def arm(last: int):
        done = []

        def counted(name, change):
            def one(*args, **kwargs):
                if len(done) >= last:
                    raise Killed
                done.append(name)
                return change(*args, **kwargs)

            return one

        for name in ("write_table", "write_json", "drop"):
            monkeypatch.setattr(plans, name, counted(name, getattr(plans, name)))
        monkeypatch.setattr(plans.os, "replace", counted("replace", os.replace))

    yield arm
    monkeypatch.undo()


CHANGES = (
    *("nothing", "one table", "one table and its name", "both tables", "both tables and names", "the note"),
    *(
        "the note and its name",
        "the old plan is out of its place",
        "the new plan is in its place",
        "the old one is gone",
    ),
)


@pytest.mark.parametrize("last", range(len(CHANGES)), ids=CHANGES)
def test_a_kill_at_any_point_leaves_one_whole_plan(tmp_path, killed_at, monkeypatch, last):
    folder = plan_folder(tmp_path, "pack")
    write_plan(tmp_path, "pack", tables_of(1, 2, 3))
    before = (folder / "plan.json").read_bytes()
    killed_at(last)
    with pytest.raises(Killed):
        write_plan(tmp_path, "pack", tables_of(2, 7))
    monkeypatch.undo()
    read = read_records(tmp_path, {})
    assert read.findings == []  # verify looks before anybody takes the folder
    wanted = {"00002": [2], "00007": [7]} if last >= 8 else {"00001": [1], "00002": [2], "00003": [3]}
    assert read.plans == {"pack": set(wanted)}
    assert [path.stem for path in planned_tables(tmp_path, "pack")] == list(wanted)
    assert {path.rpartition("/")[2]: claim.file.sha256 for path, claim in read.claims.items()} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in planned_tables(tmp_path, "pack")
    }
    settle_plans(tmp_path)
    sweep(tmp_path)
    assert content(folder) == wanted
    assert ((folder / "plan.json").read_bytes() == before) is (last < 8)
    assert [path.name for path in folder.parent.iterdir()] == ["pack"]


def test_a_plan_stands_where_it_was_made_from_the_same(tmp_path):
    planned = write_plan(tmp_path, "t5", tables_of(4, 5), "a" * 64)

    def never():
        raise AssertionError("asked for its tables")
        yield

    assert write_plan(tmp_path, "t5", never(), "a" * 64) == planned
    assert json.loads((plan_folder(tmp_path, "t5") / "plan.json").read_text())["made_from"] == "a" * 64
    write_plan(tmp_path, "t5", tables_of(6), "b" * 64)
    assert content(plan_folder(tmp_path, "t5")) == {"00006": [6]}


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "one more", "no note", "another step's", "of before"])
def test_a_plan_that_is_not_whole_is_made_again(tmp_path, damage):
    write_plan(tmp_path, "t5", tables_of(4, 5), "a" * 64)
    folder = plan_folder(tmp_path, "t5")
    table, note = folder / "00005.parquet", folder / "plan.json"
    whole = table.read_bytes()
    match damage:
        case "changed":
            table.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        case "cut":
            table.write_bytes(whole[:-1])
        case "gone":
            table.unlink()
        case "one more":
            (folder / "00006.parquet").write_bytes(whole)
        case "no note":
            note.unlink()
        case "another step's":
            note_plan(folder, json.loads(note.read_text())["files"], "a" * 64, "pack")
        case "of before":  # earlier versions did not say what a plan was made from
            note_plan(folder, json.loads(note.read_text())["files"])
    write_plan(tmp_path, "t5", tables_of(4, 5), "a" * 64)
    assert content(folder) == {"00004": [4], "00005": [5]}
    assert sorted(path.name for path in folder.iterdir()) == ["00004.parquet", "00005.parquet", "plan.json"]
    assert json.loads(note.read_text())["made_from"] == "a" * 64


def test_a_table_that_is_younger_than_its_note_is_measured_and_stands(tmp_path):
    planned = write_plan(tmp_path, "t5", tables_of(4), "a" * 64)
    table = planned[0][1]
    os.utime(table, ns=(0, (table.parent / "plan.json").stat().st_mtime_ns + 1))  # as a copy of the folder has it
    assert write_plan(tmp_path, "t5", iter(()), "a" * 64) == planned


def test_a_failed_plan_leaves_the_one_before_and_nothing_else(tmp_path):
    write_plan(tmp_path, "t5", tables_of(4))

    def broken():
        yield from tables_of(5)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_plan(tmp_path, "t5", broken())
    assert content(plan_folder(tmp_path, "t5")) == {"00004": [4]}
    assert [path.name for path in plan_folder(tmp_path, "t5").parent.iterdir()] == ["t5"]


def test_the_digest_of_a_plan_is_that_of_its_tables(tmp_path):
    assert plan_digest(tmp_path, "t5") == ""
    write_plan(tmp_path, "t5", tables_of(4), "a" * 64)
    first = plan_digest(tmp_path, "t5")
    write_plan(tmp_path, "t5", tables_of(4), "b" * 64)
    assert plan_digest(tmp_path, "t5") == first
    write_plan(tmp_path, "t5", tables_of(5), "c" * 64)
    assert plan_digest(tmp_path, "t5") != first


def test_tables_that_were_written_elsewhere_become_the_plan(tmp_path):
    write_plan(tmp_path, "fetch", [("00000", pa.table({"n": [1]})), ("00001", pa.table({"n": [2]}))], "before")
    made = tmp_path / "made"
    write_table(made / "x" / "00000.parquet", pa.table({"n": [7]}))
    planned = put_plan(tmp_path, "fetch", [FileRecord.of(made, made / "x" / "00000.parquet")], made, "now")
    assert [(name, pq.read_table(path)["n"].to_pylist()) for name, path, _ in planned] == [("00000", [7])]
    assert [path.name for path in planned_tables(tmp_path, "fetch")] == ["00000.parquet"]
    assert standing_plan(tmp_path, "fetch", "now") == planned
    assert standing_plan(tmp_path, "fetch", "before") is None
    assert (made / "x" / "00000.parquet").exists()
