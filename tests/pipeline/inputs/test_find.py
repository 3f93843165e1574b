"""The files that input.files means: nested folders, names with wildcards in them, hidden files passed over and said."""

import os
import secrets

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_json
from manifests.store import path_of
from pipeline.inputs.files import data_folder, look_at_inputs
from pipeline.inputs.find import find_files, literal_folder, walk
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError


def recipe(files, root="run", dataset="laion-coco"):
    patterns = [str(one) for one in files] if isinstance(files, list) else str(files)
    given = {"input": {"dataset": dataset, "files": patterns}, "output": {"root": str(root)}}
    return parse_recipe({**given, "tier": {"a": {"size": 64}}})


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes empty files below in/, and one that names what is found of them."""
    folder = tmp_path / "in"

    def make(*names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def found(pattern, dataset="laion-coco", notes=None):
        urls = find_files(recipe(pattern, tmp_path / "run", dataset), notes)
        return [url.removeprefix(f"file://{folder}/") for url in urls]

    return make, found


def test_a_folder_is_read_to_any_depth(tree):
    make, found = tree
    folder = make("a.parquet", "2024/01/b.parquet", "2024/02/b.parquet", "2024/notes.md")
    assert found(folder) == ["2024/01/b.parquet", "2024/02/b.parquet", "a.parquet"]
    make("s/0.tar", "s/0.parquet", "s/deep/1.tar")
    assert found(folder / "s", "img2dataset") == ["s/0.parquet", "s/deep/1.tar"]
    make("l/deep/b.jsonl.gz", "l/c.jsonl.zst")
    assert found(folder / "l", "jsonl") == ["l/c.jsonl.zst", "l/deep/b.jsonl.gz"]
    make("l/deep/b.jsonl")
    assert found(folder / "l", "jsonl") == ["l/deep/b.jsonl"]


def test_hidden_files_are_passed_over_and_said(tree):
    """A folder copied from a Mac ended with exit 3."""
    make, found = tree
    names = ("p.parquet", "._p.parquet", "_p.parquet", "_temporary/q.parquet", ".cache/r.parquet", "d/._s.parquet")
    folder = make(*names, "_SUCCESS", ".DS_Store")
    said = "hidden files and folders are passed over (their names begin with . or _), such as"
    for pattern, count in ((folder, 5), (f"{folder}/*.parquet", 2), (f"{folder}/**/*.parquet", 5)):
        notes = []
        assert found(pattern, notes=notes) == ["p.parquet"]
        assert len(notes) == 1
        assert notes[0].startswith(f"{count} {said} {folder}/")


def test_a_hidden_file_that_is_named_is_read(tree):
    make, found = tree
    folder = make("_p.parquet", "p.parquet", "_in/q.parquet")
    assert found(folder / "_p.parquet") == ["_p.parquet"]
    assert found(f"{folder}/_*.parquet") == ["_p.parquet"]
    assert found(folder / "_in") == ["_in/q.parquet"]
    assert found([folder / "_in", folder / "p.parquet"]) == ["_in/q.parquet", "p.parquet"]


def test_where_all_files_are_hidden_the_error_says_so(tree):
    make, found = tree
    with pytest.raises(RecipeError, match=r"no file matches .*; 1 hidden files and folders are passed over"):
        found(make("._p.parquet"))


ODD = ["a[1].parquet", "what*.parquet", "why?.parquet"]


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_exists_is_no_glob(tree, name):
    """They were 'no file matches'."""
    make, found = tree
    folder = make(*ODD, "a1.parquet", "whatever.parquet", "why!.parquet")
    assert found(folder / name) == [name]


def test_a_folder_that_exists_is_no_glob(tree):
    make, found = tree
    folder = make("[2024] set/p.parquet", "[2024] set/d/q.parquet", "2/p.parquet")
    assert found(folder / "[2024] set") == ["[2024] set/d/q.parquet", "[2024] set/p.parquet"]
    assert found(f"{folder}/[2024] set/*.parquet") == ["[2024] set/p.parquet"]
    assert found(f"{folder}/[2024] set/**/*.parquet") == ["[2024] set/d/q.parquet", "[2024] set/p.parquet"]
    assert found(f"{folder}/[2024]/*.parquet") == ["2/p.parquet"]  # no such folder: a glob
    local = fsspec.filesystem("file")
    assert literal_folder(local, f"{folder}/[2024] set/*.parquet") == f"{folder}/[2024] set"
    assert literal_folder(local, f"{folder}/[2024]/*.parquet") == str(folder)
    assert data_folder(recipe(f"{folder}/[2024] set/*.jsonl", dataset="jsonl")) == f"file://{folder}/[2024] set"


def test_tables_in_text_are_read_where_a_folder_has_no_parquet(tree):
    make, found = tree
    names = ["a.csv", "b.tsv.gz", "c/d.txt", "e.json.bz2", "f.jsonl.zst", "g.ndjson.xz", "h.tab"]
    folder = make(*names, "i.md", "j.zip", "k.pq")
    assert found(folder) == [*names, "k.pq"]
    make("z.parquet")
    notes = []
    assert found(folder, notes=notes) == ["z.parquet"]
    said = "8 files are not read, as .parquet files are beside them; name them to read them, such as"
    passed = f"2 files in folders are passed over: no ending of a table, such as {folder}/i.md"
    assert notes == [passed, f"{said} {folder}/a.csv"]
    assert found([folder, folder / "a.csv"]) == ["a.csv", "z.parquet"]


def test_endings_in_capitals_and_folders_that_spark_wrote_are_read(tree):
    make, found = tree
    folder = make("B.PARQUET", "spark.parquet/part-0.parquet", "spark.parquet/_SUCCESS", "c.parquet", "part-00000")
    notes = []
    assert found(folder, notes=notes) == ["B.PARQUET", "c.parquet", "spark.parquet/part-0.parquet"]
    assert f"1 files in folders are passed over: no ending of a table, such as {folder}/part-00000" in notes
    assert found(folder / "*.parquet") == ["c.parquet", "spark.parquet/part-0.parquet"]
    (folder / "B.PARQUET").rename(folder / "UP.CSV")
    for name in ("c.parquet", "spark.parquet/part-0.parquet"):
        (folder / name).unlink()
    assert found(folder) == ["UP.CSV"]


def test_run_folders_and_loops_of_links_are_not_entered(tree, tmp_path):
    make, found = tree
    folder = make("a.parquet", "run/ledger/b.parquet")
    write_json(folder / "run" / "manifests" / "input.json", {"files": []})
    (folder / "loop").symlink_to(folder)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "c.parquet").touch()
    (folder / "link").symlink_to(tmp_path / "else")
    assert found(folder) == ["a.parquet", "link/c.parquet"]


def test_folders_of_other_stores_are_read_to_any_depth():
    memory = fsspec.filesystem("memory")
    for name in ("a.parquet", "deep/b.parquet", "deep/_tmp/c.parquet", "[1]/d.parquet"):
        memory.pipe(f"/walked/{name}", b"")
    hidden = []
    assert sorted(walk(memory, "/walked", hidden)) == [
        "/walked/[1]/d.parquet",
        "/walked/a.parquet",
        "/walked/deep/b.parquet",
    ]
    assert hidden == ["/walked/deep/_tmp/"]
    assert find_files(recipe("memory://walked/[1]/*.parquet")) == ["memory:///walked/[1]/d.parquet"]
    memory.rm("/walked", recursive=True)


def test_a_run_folder_in_a_store_is_not_entered():
    root = f"memory://{secrets.token_hex(4)}"
    for name in ("a.parquet", "manifests/b.parquet", "run/manifests/input.json", "run/pairs/00000.parquet"):
        path_of(f"{root}/data/{name}").write_bytes(b"")
    assert [url.rpartition("/data/")[2] for url in find_files(recipe(f"{root}/data"))] == [
        "a.parquet",
        "manifests/b.parquet",
    ]


def test_a_hidden_file_that_a_run_was_made_from_stays(tmp_path):
    """An earlier version read it: the run goes on with it."""
    table = pa.table({"URL": ["http://a.test/1.jpg"]})
    (tmp_path / "in").mkdir()
    for name in ("_a.parquet", "b.parquet"):
        pq.write_table(table, tmp_path / "in" / name)
    named = recipe([tmp_path / "in" / "_a.parquet", tmp_path / "in" / "b.parquet"], tmp_path / "run")
    register_files(named.root, look_at_inputs(named))
    for pattern in (tmp_path / "in", f"{tmp_path}/in/*.parquet"):
        again = recipe(pattern, tmp_path / "run")
        assert [file.name for file in register_files(again.root, look_at_inputs(again))] == ["_a.parquet", "b.parquet"]


def test_a_folder_that_may_not_be_read_is_passed_over_and_said(tree, monkeypatch):
    make, found = tree
    folder = make("a.parquet", "lost+found/b.parquet")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "lost+found" not in str(path) and allowed(path, mode))
    notes = []
    assert found(folder, notes=notes) == ["a.parquet"]
    assert notes == [f"1 folders may not be read, such as {folder}/lost+found/"]


def test_what_is_no_tar_beside_tars_is_said_and_a_tar_in_capitals_read(tree):
    """b.tar.gz, c.tgz and D.TAR were in no row, no loss and no warning."""
    make, found = tree
    folder = make("a.tar", "a_stats.json", "b.tar.gz", "c.tgz", "D.TAR", "deep/0.jpg", "._x.tar")
    hidden = "1 hidden files and folders are passed over (their names begin with . or _), such as"
    said = "files are passed over: neither .tar nor .parquet (a packed tar is read once it is unpacked), such as"
    notes = []
    assert found(folder, "img2dataset", notes) == ["D.TAR", "a.tar"]
    assert notes == [f"{hidden} {folder}/._x.tar", f"3 {said} {folder}/b.tar.gz"]
    notes.clear()
    assert found(f"{folder}/*", "img2dataset", notes) == ["D.TAR", "a.tar"]
    assert notes == [f"{hidden} {folder}/._x.tar", f"2 {said} {folder}/b.tar.gz"]
    with pytest.raises(RecipeError, match=r"no file matches .*; 1 files are passed over: neither \.tar"):
        found(folder / "c.tgz", "img2dataset")


def test_a_tar_in_capitals_beside_its_table_is_said(tree):
    """Its table looks for it by the ending .tar."""
    make, found = tree
    folder = make("D.TAR", "D.parquet", "E.PARQUET", "e.tar", "e.parquet")
    notes = []
    assert found(folder, "img2dataset", notes) == ["D.parquet", "e.parquet"]
    assert [note.partition(",")[0] for note in notes] == [
        "1 files are passed over: neither .tar nor .parquet (a packed tar is read once it is unpacked)",
        "1 tars are passed over: beside its table a tar is read where its name ends with .tar",
    ]
    assert notes[1].endswith(f"such as {folder}/D.TAR")
