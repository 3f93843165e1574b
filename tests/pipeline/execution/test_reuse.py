"""pipeline/execution/reuse.py: what an earlier plan made is carried over only where it was made the same way and is
whole, and a unit opens only the groups that hold its rows."""

import io

import numpy as np
import pyarrow as pa
import pytest

from manifests.aside import UNDER_WAY, groups
from manifests.files import write_table
from manifests.schema import schema
from pipeline.execution import reuse
from pipeline.execution.reuse import INDEX, adopt, earlier_rows, note_places, set_aside
from tests.support.groups import scores
from tests.support.records import uid


def values(root, made_by, numbers=(0, 1, 2, 3)):
    rows = earlier_rows(root, "score", made_by, [uid(number) for number in numbers])
    return {(key[0], made_from.decode()): row["value"] for (key, made_from), row in rows.items()}


@pytest.fixture
def set_apart(anywhere):
    """Return a run folder with two shards of one model and one of another set aside; row 3 killed its worker."""
    one = [(uid(0), "a"), (uid(1), "b")], [(uid(2), "c"), (uid(3), "d")]
    records = [scores(anywhere, "0", one[0]), scores(anywhere, "1", one[1], dead=[uid(3)])]
    set_aside(anywhere, "score", [*records, scores(anywhere, "2", [(uid(0), "a")], "two")])
    return anywhere


@pytest.mark.parametrize("index", [False, True])
def test_rows_made_the_same_way_are_found_and_no_dead_workers(set_apart, index):
    if index:
        note_places(set_apart, "score", {"one", "two"})
    assert values(set_apart, "one") == {(0, "a"): "0", (1, "b"): "0", (2, "c"): "1"}
    assert values(set_apart, "one", [1]) == {(1, "b"): "0"}
    assert values(set_apart, "one", [9]) == values(set_apart, "one", []) == {}
    assert values(set_apart, "two") == {(0, "a"): "2"}
    assert values(set_apart, "three") == {}


def test_one_picture_under_two_shards_and_two_pictures_of_one_row(tmp_path):
    records = [scores(tmp_path, "0", [(uid(0), "old")]), scores(tmp_path, "1", [(uid(0), "new")])]
    set_aside(tmp_path, "score", records)
    assert values(tmp_path, "one") == {(0, "old"): "0", (0, "new"): "1"}


def test_a_unit_opens_only_the_groups_that_hold_its_rows(tmp_path, monkeypatch):
    count = 50
    set_aside(
        tmp_path, "score", [scores(tmp_path, str(n), [(uid(2 * n), "x"), (uid(2 * n + 1), "x")]) for n in range(count)]
    )
    note_places(tmp_path, "score", {"one"})
    folder = tmp_path / UNDER_WAY / "score" / INDEX
    keys = np.load(folder / "keys.npy")
    assert (len(keys), keys.itemsize + np.load(folder / "numbers.npy").itemsize) == (2 * count, 12)  # bytes a row
    assert (np.diff(keys.astype(object)) > 0).all()
    opened = []
    monkeypatch.setattr(reuse, "read_group", lambda path: opened.append(path.stem) or read(path))
    read = groups.__globals__["read_group"]
    assert values(tmp_path, "one", [10, 11, 12]) == {(10, "x"): "5", (11, "x"): "5", (12, "x"): "6"}
    assert len(opened) == 2


def test_a_shard_without_rows_is_set_aside_as_nothing(tmp_path):
    assert set_aside(tmp_path, "score", [scores(tmp_path, "0", [])]) == []
    note_places(tmp_path, "score", {"one"})
    assert values(tmp_path, "one") == {}


def test_a_damaged_file_is_not_set_aside_and_what_was_outlives_its_shard(tmp_path):
    whole, damaged = scores(tmp_path, "0", [(uid(0), "a")]), scores(tmp_path, "1", [(uid(1), "b")])
    (tmp_path / "scores/1.parquet").write_bytes(b"PAR1")
    assert set_aside(tmp_path, "score", [whole, damaged]) == [
        "warning: score: scores/1.parquet is missing or damaged: its 1 rows are not set aside"
    ]
    (tmp_path / "scores/0.parquet").unlink()
    assert values(tmp_path, "one") == {(0, "a"): "0"}


@pytest.mark.parametrize("index", [False, True])
def test_a_flipped_byte_keeps_a_group_from_being_used(set_apart, index):
    if index:
        note_places(set_apart, "score", {"one"})
    group = next(g for g in groups(set_apart, UNDER_WAY, "score") if g.made_by == "one" and g.rows == 2)
    path = group.folder / group.table
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.unlink()  # another name of the shard's own bytes
    path.write_bytes(bytes(data))
    others = {(0, "a"): "0", (1, "b"): "0"} if group.name != _first(set_apart) else {(2, "c"): "1"}
    assert values(set_apart, "one") == others
    assert [mark.name for mark in (group.folder / "damaged").iterdir()] == [group.name]


def _first(root):
    """Return the group that holds row 0 of the first model."""
    return next(g.name for g in groups(root, UNDER_WAY, "score") if g.made_by == "one" and _holds_first(g))


def _holds_first(group):
    return (group.folder.parent.parent / "scores" / "0.parquet").stat().st_size == group.bytes and group.files[
        0
    ].sha256 == scores(group.folder / "again", "0", [(uid(0), "a"), (uid(1), "b")]).files[0].sha256


def test_what_an_older_version_left_is_taken_up_as_it_is(set_apart):
    folder = set_apart / UNDER_WAY / "score"
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / "torn-scores.parquet").write_bytes(b"PAR1")
    assert values(set_apart, "one") == {}
    said = adopt(set_apart, "score")
    assert said == ["warning: score: .earlier/score/torn-scores.parquet is damaged and dropped"]
    assert len(groups(set_apart, UNDER_WAY, "score")) == 3
    assert not (folder / "torn-scores.parquet").exists()
    assert values(set_apart, "one") == {(0, "a"): "0", (1, "b"): "0", (2, "c"): "1"}


@pytest.mark.parametrize("files", [256, 1, 2])
def test_the_index_is_the_same_where_tables_are_opened_some_at_a_time(set_apart, monkeypatch, files):
    monkeypatch.setattr(reuse, "FILES", files)
    note_places(set_apart, "score", {"one", "two"})
    folder = set_apart / UNDER_WAY / "score" / INDEX
    assert sorted(path.name for path in folder.iterdir()) == ["groups.json", "keys.npy", "numbers.npy"]
    keys, numbers = (np.load(io.BytesIO((folder / f"{name}.npy").read_bytes())) for name in ("keys", "numbers"))
    heads = [int.from_bytes(uid(number)[:8], "big") for number in (0, 0, 1, 2, 3)]
    assert (keys.tolist(), sorted(numbers.tolist())) == (heads, [0, 0, 1, 1, 2])
    assert values(set_apart, "one") == {(0, "a"): "0", (1, "b"): "0", (2, "c"): "1"}
    assert values(set_apart, "two") == {(0, "a"): "2"}


def test_a_process_looks_at_every_byte_of_a_file_once_while_it_stays_as_it_is(set_apart, monkeypatch):
    measured = []
    real = groups.__globals__["sha256_file"]
    monkeypatch.setattr("manifests.aside.sha256_file", lambda path: measured.append(path.name) or real(path))
    monkeypatch.setattr(reuse, "AGE_NS", 0)
    for _ in range(3):
        assert values(set_apart, "one") == {(0, "a"): "0", (1, "b"): "0", (2, "c"): "1"}
    assert len(measured) == len(set(measured)) == 2
    path = set_apart / UNDER_WAY / "score" / measured[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert len(values(set_apart, "one")) < 3
    assert (len(measured), len(list((path.parent / reuse.DAMAGED).iterdir()))) == (3, 1)


def test_row_groups_with_wanted_rows_alone_are_read(tmp_path):
    rows = [{"uid": uid(number), "value": number} for number in range(20)]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*schema("uid"), ("value", pa.int64())]))
    write_table(tmp_path / "t.parquet", table, 3)
    for numbers in ([], [99], [0], [2, 3], [19, 5, 4, 18]):
        found = reuse._rows(tmp_path / "t.parquet", pa.array([uid(number) for number in numbers], pa.binary(16)))
        assert found["value"].to_pylist() == sorted(number for number in numbers if number < 20)
        assert found.schema.equals(table.schema)
    write_table(tmp_path / "none.parquet", table.slice(0, 0), 3)
    assert reuse._rows(tmp_path / "none.parquet", pa.array([uid(1)], pa.binary(16))).num_rows == 0
