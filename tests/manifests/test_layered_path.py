"""A working copy of a run in a store: its own files over the run's, and what it has no more."""

import pytest

import manifests.layered_path as layers
from manifests.files import write_bytes
from manifests.layered_path import LayeredPath, layer_names, layered, make_layer, uncover
from manifests.query import connect, files_sql
from manifests.remote_path import RemotePath, snapshot
from manifests.store import drop, link, path_of, rename
from tests.support.object_store import in_memory


@pytest.fixture
def root():
    run = in_memory()
    for name in ("a.bin", "pairs/0.tar", "pairs/1.tar", "logs/x.log", ".lock", "pairs/.tmp-half"):
        (run / name).write_bytes(name.encode())
    return run


@pytest.fixture(params=[None, ("pairs/1.tar",)], ids=["one process", "several"])
def copy(root, request):
    holder = ".removal" if request.param is None else ".tmp-repair-7-ab"
    return make_layer(root, holder, ("logs",), (".tmp-", ".lock"), request.param)


def names(folder):
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*")]


def forget(copy):
    """Let another process look."""
    layers._LAYERS.clear()
    return path_of(str(copy))


def test_what_was_not_changed_is_the_runs(root, copy):
    there = ["a.bin", "pairs/0.tar", "pairs/1.tar"]
    if copy.parent.name != ".removal":
        there.remove("pairs/1.tar")
    assert names(copy) == there
    assert (copy / "a.bin").read_bytes() == b"a.bin"
    assert (copy / "a.bin").stat().st_size == 5
    assert (copy / "pairs").is_dir()
    assert [path.name for path in copy.iterdir()] == ["a.bin", "pairs"]
    for hidden in ("logs/x.log", ".lock", "pairs/.tmp-half", "none"):
        assert not (copy / hidden).exists()
        with pytest.raises(FileNotFoundError):
            (copy / hidden).read_bytes()


def test_what_is_written_or_dropped_leaves_the_run_alone(root, copy):
    before = {path: path.read_bytes() for path in root.rglob("*") if copy.parent.name not in path.parts}
    write_bytes(copy / "a.bin", b"new")
    write_bytes(copy / "logs" / "y.log", b"own")
    (copy / "pairs" / "0.tar").unlink()
    link(copy / "a.bin", copy / "deep" / "b.bin")
    rename(copy / "deep" / "b.bin", copy / "deep" / "c.bin")
    with pytest.raises(FileNotFoundError):
        (copy / "deep" / "b.bin").unlink()
    for seen in (copy, forget(copy)) if copy.parent.name != ".removal" else (copy,):
        assert (seen / "a.bin").read_bytes() == b"new"
        assert not (seen / "pairs" / "0.tar").exists()
        assert {"a.bin", "logs/y.log", "deep/c.bin"} <= set(names(seen))
        assert "pairs/0.tar" not in names(seen)
        assert (seen / "deep" / "c.bin").read_bytes() == b"new"
    written, gone = layer_names(copy)
    assert written == ["a.bin", "deep/c.bin", "logs/y.log"]
    assert "pairs/0.tar" in gone
    assert {path: path.read_bytes() for path in before} == before


def test_a_dropped_folder_is_gone_and_an_uncovered_file_is_the_runs_again(root, copy):
    drop(copy / "pairs")
    assert names(copy) == ["a.bin"]
    assert not any((copy / "pairs").iterdir())
    write_bytes(copy / "pairs" / "0.tar", b"other")
    uncover(copy / "pairs" / "0.tar")
    assert (copy / "pairs" / "0.tar").read_bytes() == b"pairs/0.tar"
    assert names(copy) == ["a.bin", "pairs/0.tar"]


def test_a_listing_that_is_kept_knows_what_was_written_since(copy):
    with snapshot():
        assert not (copy / "pairs" / "9.tar").exists()
        write_bytes(copy / "pairs" / "9.tar", b"x")
        assert (copy / "pairs" / "9.tar").read_bytes() == b"x"


def test_a_url_of_a_copy_is_a_path_of_it_and_what_lies_around_is_none(root, copy):
    assert isinstance(path_of(str(copy)), LayeredPath)
    assert isinstance(path_of(f"{copy}/pairs/0.tar"), LayeredPath)
    assert copy.parent == root / copy.parent.name
    for path in (root, root / ".removal", root / "new", copy.parent, copy.parent / "gone"):
        assert type(layered(path)) is RemotePath


def test_queries_see_the_copy(root, copy):
    import pyarrow as pa

    from manifests.files import write_table

    write_table(root / "t" / "0.parquet", pa.table({"x": [1]}))
    write_table(root / "t" / "1.parquet", pa.table({"x": [2]}))
    write_table(copy / "t" / "1.parquet", pa.table({"x": [20]}))
    with connect(copy) as connection:
        sql = files_sql([copy / "t" / "0.parquet", copy / "t" / "1.parquet"])
        assert connection.execute(f"SELECT sum(x) FROM {sql}").fetchone() == (21,)
