"""Rows of one uid under another select: who stands for whom, what opens, and clusters without rows that are gone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.schema import COLUMNS
from pipeline.analysis.replan import COMES, COPY, LEAVES, SAID, STAYS, Groups, Regrouped, among, rows_of
from pipeline.analysis.stored_run import Shard, Stored
from tests.support.judged_rows import uid


def write_shard(folder: Path, name: str, rows: list[dict]) -> Shard:
    columns = {key: [row.get(key) for row in rows] for key in ("uid", "reason", "step", *SAID)}
    arrays = [pa.array(values, COLUMNS[key].type if key in COLUMNS else pa.string()) for key, values in columns.items()]
    write_table(folder / f"{name}.parquet", pa.table(arrays, names=list(columns)))
    return Shard(name, len(rows), folder / f"{name}.parquet", folder / f"{name}.parquet")


def settle(stored: Stored, kinds: list[int], uids: list[int], maybe: frozenset[int] = frozenset()):
    """Settle rows of these kinds and uids; those that stay are looked up in the run's tables."""
    asked, start = iter(uids), 0
    for shard in stored.shards:
        table = pq.read_table(shard.final)
        theirs = pa.array([uid(next(asked, 90)) for _ in range(shard.rows)], pa.binary(16))
        write_table(shard.final, table.set_column(table.schema.get_field_index("uid"), "uid", theirs))
    groups = Groups()
    for shard in stored.shards:
        rows = slice(start, start + shard.rows)
        here = np.array(kinds[rows], np.int8)
        theirs = pa.array([uid(n) for n in uids[rows]], pa.binary(16))
        flags = np.array([row in maybe for row in range(start, start + len(here))], bool)
        groups.add(start, theirs, here, flags, np.full(len(here), 1, np.int16))
        start += shard.rows
    assert groups.left_codes.tolist() == [1] * kinds.count(LEAVES)
    return groups.settle(stored)


@pytest.fixture
def stored(tmp_path):
    """Return a run whose rows 0 to 3 are let in; row 3 is wider than the others, row 4 was dropped."""
    rows = [{"width": 96}, {"width": 96}, {"width": 96}, {"width": 100}, {"reason": "size", "width": 96}]
    shards = (write_shard(tmp_path, "a", rows[:2]), write_shard(tmp_path, "b", rows[2:]))
    return Stored(tmp_path, shards, {})


def test_nothing_that_comes_in_needs_no_plan(stored):
    plan = settle(stored, [STAYS, LEAVES, STAYS], [0, 1, 2])
    assert (plan.gone.tolist(), len(plan.stands), len(plan.copies), len(plan.open)) == ([1], 0, 0, 0)


def test_a_copy_takes_the_place_of_the_fetched_row_that_leaves(stored):
    plan = settle(stored, [LEAVES, COPY, COPY], [0, 0, 0])
    assert plan.stands.tolist() == [[1, 0]]
    assert plan.copies.tolist() == [2]
    assert (plan.gone.tolist(), plan.open.tolist(), plan.other.tolist()) == ([], [], [])


def test_a_copy_that_says_other_things_is_judged_by_its_own_values(stored):
    plan = settle(stored, [LEAVES, 0, 0, COPY], [0, 1, 2, 0])
    assert (plan.stands.tolist(), plan.other.tolist()) == ([[3, 0]], [[3, 0]])


def test_rows_without_a_picture_open(stored):
    assert settle(stored, [STAYS, 0, 0, 0, COMES], [0, 1, 2, 3, 4]).open.tolist() == [4]
    taken = settle(stored, [LEAVES, 0, 0, 0, COMES], [0, 1, 2, 3, 0])  # its values were not kept: row 4 was dropped
    assert (taken.open.tolist(), taken.gone.tolist()) == ([4], [0])


def test_a_row_that_may_come_in_before_the_fetched_one_leaves_it_where_it_is(stored):
    plan = settle(stored, [COMES, STAYS], [0, 0], frozenset({0}))
    assert (plan.stands.tolist(), plan.copies.tolist(), plan.open.tolist()) == ([[1, 1]], [0], [])


def test_rows_come_in_the_order_asked_from_their_shards(stored):
    table = rows_of(np.array([3, 0, 4, 3]), stored, False, ("width", "reason"))
    assert table.to_pydict() == {"width": [100, 96, 96, 100], "reason": [None, None, "size", None]}


def test_clusters_without_the_rows_that_are_gone():
    cluster = pa.array([uid(7), uid(7), None, uid(8)], pa.binary(16))
    regrouped = Regrouped(np.array([10]), np.array([11, 40]), pa.array([uid(1), uid(2)], pa.binary()))
    labels = regrouped.relabel(np.array([10, 11, 12, 13]), cluster)
    assert labels.to_pylist() == [None, uid(1), None, uid(8)]
    assert labels.type == pa.binary(16)
    nothing = Regrouped(np.empty(0, np.int64), np.empty(0, np.int64), pa.array([], pa.binary()))
    assert nothing.relabel(np.arange(4), cluster).equals(cluster)


def test_some_of_many_wanted_rows():
    wanted = np.array([3, 5, 8, 1000, 2000])
    assert among(np.array([4, 5, 7, 8]), wanted).tolist() == [False, True, False, True]
    assert among(np.empty(0, np.int64), wanted).tolist() == []


def test_rows_of_before_that_were_never_sent_to_the_fetch_do_not_stay(tmp_path):
    """Of one uid: a row that was removed, one that select dropped and a copy stand for nobody; row 3 was fetched."""
    rows = [{"step": "dedup"}, {"reason": "size", "step": "select"}, {"reason": "exact_duplicate", "step": "fetch"}, {}]
    stored = Stored(tmp_path, (write_shard(tmp_path, "a", rows), write_shard(tmp_path, "b", [{"reason": "size"}])), {})
    plan = settle(stored, [0, 0, 0, STAYS, COMES], [7] * 5)
    assert (plan.stands.tolist(), plan.copies.tolist(), plan.open.tolist()) == ([[3, 3]], [4], [])
