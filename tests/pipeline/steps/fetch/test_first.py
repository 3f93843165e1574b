"""The first row of each uid, by shard of the select ledger: whatever the parts, the order and the batches."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.journal import records_of
from pipeline.execution.shuffle import here
from pipeline.execution.step import Unit
from pipeline.steps.fetch.first import FIRST, ByUid, First, FirstOfUid, first_of_each, halves
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.records import uid
from tests.support.selected import add_files, leave_gap, put_selected, recipe_of


@pytest.fixture
def root(tmp_path):
    """Return a run folder of three files: 1 stands in all of them, 2 twice in the last; 9 was dropped."""
    add_files(tmp_path, "a", "b", "c")
    put_selected(tmp_path, "a", (3, None), (9, "size"), (1, None))
    put_selected(tmp_path, "b", (1, None), (9, "size"))
    put_selected(tmp_path, "c", (2, None), (1, None), (2, None), (4, None))
    return tmp_path


def first(root):
    return First(recipe_of(2), root)


def rows(root):
    return {path.stem: pq.read_table(path)["row"].to_pylist() for path in sorted((root / "ledger/first").glob("*"))}


def test_only_the_first_row_of_a_uid_in_the_whole_input_is_named(root):
    first(root).make()
    assert rows(root) == {"a": [0, 2], "b": [], "c": [0, 3]}
    records = {record.shard: record for record in records_of(root, "first")}
    assert {name: (record.rows_in, record.rows_out) for name, record in records.items()} == {
        "a": (2, 2), "b": (1, 0), "c": (4, 2),
    }  # fmt: skip
    assert records["c"].dropped == {"exact_duplicate": 2}
    assert records["b"].read == {"source": "b"}
    assert pq.read_schema(root / "ledger/first/a.parquet").equals(FIRST)


def test_a_removed_row_keeps_its_place(root):
    leave_gap(root, "a", 2, 1)
    put_selected(root, "a", (3, None), (9, "size"), (1, "removed"))
    first(root).make()
    assert rows(root) == {"a": [0, 2], "b": [0], "c": [0, 3]}
    assert pq.read_table(root / "ledger/first/a.parquet")["gone"].to_pylist() == [False, True]


def test_the_number_of_parts_shows_in_no_byte(root, monkeypatch):
    found = []
    for size in (24, 24 * 3, 10**9):
        monkeypatch.setattr("pipeline.execution.shuffle.SLICE_BYTES", size)
        found.append(ByUid(recipe_of(2), root).parts())
        for path in (root / "ledger/first").glob("*"):
            path.unlink()
        first(root).make()
        assert rows(root) == {"a": [0, 2], "b": [], "c": [0, 3]}
        found.append([path.read_bytes() for path in sorted((root / "ledger/first").glob("*"))])
    assert found[::2] == [9, 3, 1]  # what select's records of these tests call survivors: all 9 rows
    assert found[1] == found[3] == found[5]


@pytest.mark.parametrize(("size", "parts"), [(24 * 3, 3), (10**9, 1)])
def test_beams_grouping_gives_the_same_bytes(root, monkeypatch, size, parts):
    """What a cluster's runner is handed, run by Beam's local one."""
    first(root).make()
    slices = [path.read_bytes() for path in sorted((root / "ledger/first").glob("*"))]
    shutil.rmtree(root / "ledger/first")
    monkeypatch.setattr("pipeline.execution.shuffle.SLICE_BYTES", size)
    assert ByUid(recipe_of(2), root).parts() == parts
    with as_on_a_cluster():
        first(root).make(on_beam, grouped=True)
    assert [path.read_bytes() for path in sorted((root / "ledger/first").glob("*"))] == slices


def test_nothing_is_split_until_the_ledger_changes(root):
    did = []

    def do(step, units):
        did.append(step.name)
        here(step, units)

    first(root).make(do)
    first(root).make(do)
    assert did == ["first_split", "first_reduce", "first"]
    put_selected(root, "c", (2, None))
    first(root).make(do)
    assert did[3:] == did[:3]
    assert rows(root)["c"] == [0]


def test_of_each_key_the_smallest_place_in_any_order():
    """Keys 5/1, 5/2 and 7/1; two with the same first half."""
    high = np.array([5, 7, 5, 5, 5], np.uint64)
    low = np.array([2, 1, 1, 2, 1], np.uint64)
    place = np.array([9, 4, 8, 3, 1], np.uint64)
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        kept = first_of_each(high[order], low[order], place[order])
        assert sorted(place[order][kept].tolist()) == [1, 3, 4]
    assert len(first_of_each(high[:0], low[:0], place[:0])) == 0
    assert first_of_each(high[:1], low[:1], place[:1]).tolist() == [0]


def test_a_uid_is_two_numbers_that_sort_as_it_does():
    uids = pa.array([uid(1), b"\x01" + bytes(14) + b"\x02"], pa.binary(16))
    assert [half.tolist() for half in halves(uids.slice(1))] == [[1 << 56], [2]]
    assert len(halves(uids)[0]) == 2


def test_a_million_cheap_rows_start_no_worker(root):
    units = [Unit(str(number), {"rows": 500_000}, "") for number in range(5)]
    for kind in (ByUid, FirstOfUid, First):
        assert [kind(recipe_of(2), root).is_small(units[:count]) for count in (3, 4)] == [True, False]
