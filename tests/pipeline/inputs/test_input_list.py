"""The input's files: known by their footers, faulty ones counted, others refused, new ones added at the end."""

import os
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.execution.in_flight import InFlight
from pipeline.inputs.files import look_at_inputs
from pipeline.inputs.input_list import input_batches, register_files, reopen
from pipeline.inputs.parquet import RowGroups
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.steps.select import Select


def test_a_column_that_stands_twice_is_a_loss_of_the_file(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["URL", "URL"])
    pq.write_table(twice, tmp_path / "a.parquet")
    pq.write_table(pa.table({"URL": ["http://a.test"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    files = look_at_inputs(parse_recipe({"input": {"files": f"{tmp_path}/*.parquet"}, "tier": {"a": {"size": 64}}}))
    assert [(file.name, bool(file.fault)) for file in files] == [
        ("a.parquet", True),
        ("b.parquet", False),
        ("c.parquet", True),
    ]
    assert "stands in it twice" in files[0].fault


def table(*urls):
    return pa.table({"URL": pa.array(urls, pa.string())})


def recipe(*patterns):
    return parse_recipe({"input": {"files": [str(pattern) for pattern in patterns]}, "tier": {"a": {"size": 64}}})


def write(path, *urls, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*urls), path, **options)


def registered(root, *patterns):
    return [(file.name, file.batch) for file in register_files(root, look_at_inputs(recipe(*patterns)))]


def test_added_files_come_last_whatever_their_names(tmp_path):
    write(tmp_path / "in" / "b.parquet", "http://b.test")
    write(tmp_path / "in" / "c.parquet", "http://c.test")
    everything = tmp_path / "in" / "*.parquet"
    assert registered(tmp_path, everything) == [("b.parquet", 0), ("c.parquet", 0)]
    write(tmp_path / "in" / "a.parquet", "http://a.test")
    assert registered(tmp_path, everything) == [("b.parquet", 0), ("c.parquet", 0), ("a.parquet", 1)]
    assert registered(tmp_path, everything) == [("b.parquet", 0), ("c.parquet", 0), ("a.parquet", 1)]
    write(tmp_path / "in" / "a0.parquet", "http://a0.test")
    assert registered(tmp_path, everything)[2:] == [("a.parquet", 1), ("a0.parquet", 2)]
    assert input_batches(tmp_path).to_pydict() == {
        "source": ["b.parquet", "c.parquet", "a.parquet", "a0.parquet"],
        "batch": [0, 0, 1, 2],
    }


def test_files_keep_their_names_when_others_come_from_other_folders(tmp_path):
    for part in ("x", "y"):
        write(tmp_path / "in" / part / "1.parquet", f"http://{part}.test")
    old, new = tmp_path / "in" / "y" / "*.parquet", tmp_path / "in" / "x" / "*.parquet"
    assert registered(tmp_path, old) == [("1.parquet", 0)]
    assert registered(tmp_path, old, new) == [("1.parquet", 0), ("x/1.parquet", 1)]
    write(tmp_path / "in" / "1.parquet", "http://z.test")
    assert registered(tmp_path, old, new, tmp_path / "in" / "*.parquet") == [
        ("1.parquet", 0),
        ("x/1.parquet", 1),
        ("in/1.parquet", 2),
    ]


def test_a_missing_or_another_file_is_refused(tmp_path):
    write(tmp_path / "in" / "a.parquet", "http://a.test")
    write(tmp_path / "in" / "b.parquet", "http://b.test")
    registered(tmp_path, tmp_path / "in" / "*.parquet")
    (tmp_path / "in" / "a.parquet").rename(tmp_path / "in" / "aa.parquet")
    with pytest.raises(RecipeError, match=r"a\.parquet is not among the files now"):
        registered(tmp_path, tmp_path / "in" / "*.parquet")
    write(tmp_path / "in" / "a.parquet", "http://a.test/more")
    with pytest.raises(RecipeError, match=r"a\.parquet has other content now"):
        registered(tmp_path, tmp_path / "in" / "*.parquet")


def test_a_moved_or_touched_input_is_the_same_input(tmp_path):
    write(tmp_path / "in" / "a.parquet", "http://a.test")
    registered(tmp_path, tmp_path / "in" / "*.parquet")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "a.parquet", (1, 1))
    assert registered(tmp_path, tmp_path / "elsewhere" / "*.parquet") == [("a.parquet", 0)]


def test_a_faulty_file_counts_as_added_when_it_can_be_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"PAR1 no table PAR1")
    write(tmp_path / "in" / "b.parquet", "http://b.test")
    everything = tmp_path / "in" / "*.parquet"
    for _ in range(3):
        assert registered(tmp_path, everything) == [("b.parquet", 0), ("a.parquet", 0)]
    write(tmp_path / "in" / "a.parquet", "http://a.test")
    assert registered(tmp_path, everything) == [("b.parquet", 0), ("a.parquet", 1)]


def test_other_bytes_under_the_same_footer_are_another_input(tmp_path):
    """Size and footer stay the same: the digests of the bytes that finished units have read tell, once the file's time
    has changed."""
    path = tmp_path / "in" / "a.parquet"
    write(path, *(f"http://a.test/{n:04d}" for n in range(1000)), compression="none", use_dictionary=False)
    made = parse_recipe(
        {"input": {"files": str(path)}, "output": {"root": str(tmp_path / "run")}, "tier": {"a": {"size": 64}}}
    )
    register_files(made.root, look_at_inputs(made))
    step = Select(made, made.root)
    step.journal.record(step.open().run(step.units()[0], InFlight()))
    before = look_at_inputs(made)
    path.write_bytes(path.read_bytes().replace(b"a.test/0500", b"b.test/0500"))
    assert [(file.bytes, file.footer) for file in look_at_inputs(made)] == [
        (file.bytes, file.footer) for file in before
    ]
    with pytest.raises(RecipeError, match="has other content now"):
        register_files(made.root, look_at_inputs(made))
    path.write_bytes(path.read_bytes().replace(b"b.test/0500", b"a.test/0500"))
    register_files(made.root, look_at_inputs(made))


def test_any_fsspec_url_is_read_and_known_by_its_content(tmp_path):
    write(tmp_path / "a.parquet", "http://a.test", "http://b.test")
    fsspec.filesystem("memory").pipe("/tables/a.parquet", (tmp_path / "a.parquet").read_bytes())
    remote, local = recipe("memory://tables/*.parquet"), recipe(tmp_path / "*.parquet")
    assert [file.record() for file in look_at_inputs(remote)] == [file.record() for file in look_at_inputs(local)]
    with RowGroups(look_at_inputs(remote)[0].url) as file:
        assert [batch.to_pydict() for batch in file.batches(0, ["URL"], 1)] == [
            {"URL": ["http://a.test"]},
            {"URL": ["http://b.test"]},
        ]
        assert file.digest([0], ["URL"]) == ""


def test_a_name_may_become_shorter_once_a_hidden_file_is_passed_over(tmp_path):
    """An earlier version counted b/._x.parquet as a faulty file, and named files from the folder of both."""
    write(tmp_path / "in" / "a" / "x.parquet", "http://a.test")
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "b" / "._x.parquet").write_bytes(b"of a Mac")
    both = (tmp_path / "in" / "a" / "x.parquet", tmp_path / "in" / "b" / "._x.parquet")
    assert registered(tmp_path, *both) == [("a/x.parquet", 0), ("b/._x.parquet", 0)]
    assert registered(tmp_path, tmp_path / "in") == [("a/x.parquet", 0)]


@pytest.mark.parametrize("damage", ["gone", "closed", "other"])
def test_a_file_that_cannot_be_opened_any_more_is_said_in_one_sentence(tmp_path, damage):
    """It ended the run after three restarts."""
    path = tmp_path / "a.parquet"
    pq.write_table(table("http://a.test/1"), path)
    step = Select(recipe(path), tmp_path / "run")
    register_files(step.root, look_at_inputs(step.recipe))
    (unit,) = step.units()
    if damage == "gone":
        path.unlink()
    elif damage == "closed":
        path.unlink()
        path.mkdir()
        (tmp_path / "a.parquet" / "file").touch()
        unit = replace(unit, reads={**unit.reads, "url": f"{path}/file/x"})
    else:
        path.write_bytes(b"other")
    said = r"^input: a\.parquet could be read when the run began, and cannot now \(.+\); put it back and run the same"
    with pytest.raises(RecipeError, match=said):
        step.open().run(unit, InFlight())
    with pytest.raises(OSError, match="not a plain file"):
        reopen(str(tmp_path), "a")
