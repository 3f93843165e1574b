"""Paths in a store have pathlib's methods; requests that fail for a while are sent again."""

import os
import pickle
import secrets

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from manifests import remote_path, store_requests
from manifests.files import read_json, read_table, write_bytes, write_json, write_table
from manifests.query import connect, files_sql
from manifests.regular_files import walk
from manifests.remote_path import RemotePath, delete_all, is_url, read_all, snapshot
from manifests.store_requests import StoreError


@pytest.fixture
def root():
    return RemotePath.of(f"memory://{secrets.token_hex(4)}/run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(store_requests, "FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("s3://b/x", True),
        ("memory://b", True),
        ("runs/x", False),
        ("file:///tmp/x", False),
        ("C://x", True),
        ("/a", False),
    ],
)
def test_urls(text, wanted):
    assert is_url(text) == wanted


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(ValueError, match="BUCKET"):
        RemotePath.of("s3://")


def test_names_are_joined_and_cut_as_pathlib_does(root):
    path = root / "codes" / "a.tar"
    assert str(path) == f"{root}/codes/a.tar"
    assert path.relative_to(root).as_posix() == "codes/a.tar"
    assert (path.name, path.stem, path.suffix) == ("a.tar", "a", ".tar")
    assert path.with_suffix(".json").parent == root / "codes"
    assert pickle.loads(pickle.dumps(path)) == path
    assert type(pickle.loads(pickle.dumps(path))) is RemotePath
    assert sorted([root / "b", root / "a"]) == [root / "a", root / "b"]


def test_the_operating_system_is_never_given_such_a_name(root):
    with pytest.raises(TypeError, match="lies in a store"):
        os.stat(root / "a")


def test_what_lies_there(root):
    for name in ("a.json", "deep/b.bin", "deep/er/c.bin"):
        write_bytes(root / name, b"12")
    assert (root / "a.json").is_file()
    assert (root / "deep").is_dir()
    assert not (root / "no").exists()
    assert (root / "a.json").stat().st_size == 2
    assert [path.name for path in root.iterdir()] == ["a.json", "deep"]
    assert [path.name for path in root.glob("*/*.bin")] == ["b.bin"]
    assert [path.name for path in root.rglob("*.bin")] == ["b.bin", "c.bin"]
    assert [(str(folder.relative_to(root)), names, files) for folder, names, files in walk(root)] == [
        (".", ["deep"], ["a.json"]),
        ("deep", ["er"], ["b.bin"]),
        ("deep/er", [], ["c.bin"]),
    ]
    (root / "a.json").unlink()
    with pytest.raises(FileNotFoundError):
        (root / "a.json").unlink()
    with pytest.raises(FileNotFoundError):
        (root / "a.json").read_bytes()


def test_a_store_has_no_file_that_is_written_bit_by_bit(root):
    with pytest.raises(OSError, match="whole"):
        (root / "a").open("w")


def test_large_objects_are_read_in_pieces(root, monkeypatch):
    data = bytes(range(256)) * 400
    write_bytes(root / "a", data)
    monkeypatch.setattr(remote_path, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(remote_path, "PIECE_BYTES", 4096)
    with (root / "a").open("rb") as file:
        file.seek(70_000)
        assert file.read(10) == data[70_000:70_010]
        file.seek(-5, 2)
        assert file.read() == data[-5:]
    assert (root / "a").read_bytes() == data


def test_tables_and_records_and_queries(root):
    import pyarrow as pa

    write_json(root / "m.json", {"a": 1}, sealed=True)
    write_table(root / "t" / "a.parquet", pa.table({"x": [1, 2]}))
    assert read_json(root / "m.json") == {"format": 1, "a": 1}
    assert read_table(root / "t" / "a.parquet")["x"].to_pylist() == [1, 2]
    with connect(root) as connection:
        rows = connection.execute(f"SELECT x, file_row_number, filename FROM {files_sql([root / 't' / 'a.parquet'])}")
        assert rows.fetchall() == [(1, 0, f"{root}/t/a.parquet"), (2, 1, f"{root}/t/a.parquet")]


def failing(monkeypatch, name, errors):
    """Let the next calls of a method of the store raise these errors, None for none."""
    plain, left, calls = getattr(MemoryFileSystem, name), list(errors), []

    def method(self, *args, **options):
        calls.append(name)
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return plain(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, name, method)
    return calls


def test_what_fails_for_a_while_is_asked_again(root, monkeypatch):
    calls = failing(monkeypatch, "put_file", [OSError("503 Slow Down"), TimeoutError(), OSError("500")])
    write_bytes(root / "a", b"x")
    assert len(calls) == 4
    assert (root / "a").read_bytes() == b"x"


def test_what_fails_to_the_end_says_how_often_it_was_tried(root, monkeypatch):
    failing(monkeypatch, "put_file", [OSError("503 Slow Down")] * 99)
    with pytest.raises(StoreError, match=r"503 Slow Down \(tried 7 times\)"):
        write_bytes(root / "a", b"x")


def test_what_is_not_there_is_asked_for_once(root, monkeypatch):
    calls = failing(monkeypatch, "info", [])
    assert not (root / "a").exists()
    assert len(calls) == 1


def test_an_answer_that_was_cut_is_asked_for_again(root, monkeypatch):
    write_bytes(root / "a", b"0123456789")
    plain, cut = MemoryFileSystem.cat_file, [3, 0]

    def cat_file(self, path, start=None, end=None, **options):
        data = plain(self, path, start=start, end=end, **options)
        return data[: cut.pop(0)] if cut else data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    with (root / "a").open("rb") as file:
        assert file.read() == b"0123456789"
    assert cut == []


def test_an_upload_whose_answer_was_lost_is_known_for_ones_own(root):
    assert (root / "claim").create(b"me")
    assert (root / "claim").create(b"me")
    assert not (root / "claim").create(b"you")


def test_many_are_read_and_deleted_together(root, monkeypatch):
    paths = [root / "d" / f"{number}" for number in range(7)]
    for path in paths:
        write_bytes(path, path.name.encode())
    monkeypatch.setattr(remote_path, "TOGETHER", 3)
    assert read_all([*paths, root / "none"]) == [*(path.name.encode() for path in paths), None]
    delete_all([*paths[:5], root / "none"])
    delete_all([])
    assert list((root / "d").iterdir()) == paths[5:]


def test_a_snapshot_asks_once_for_each_folder_and_knows_own_changes(root, monkeypatch):
    for number in range(5):
        write_bytes(root / "d" / f"{number}", b"x" * number)
    asked = failing(monkeypatch, "info", [])
    with snapshot():
        assert [(root / "d" / f"{number}").stat().st_size for number in range(5)] == [0, 1, 2, 3, 4]
        assert not (root / "d" / "9").exists()
        write_bytes(root / "d" / "9", b"new")
        assert [(root / "d" / "9").stat().st_size for _ in range(3)] == [3, 3, 3]
    assert asked == ["info"]  # of what was changed itself, once
    assert (root / "d" / "9").exists()
    assert asked == ["info", "info"]
