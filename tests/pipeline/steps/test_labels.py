"""Clusters and marks are looked up by uid in mapped files; rows without any take no room in them."""

import numpy as np
import pyarrow as pa
import pytest

from filters.survivors import halves
from manifests.files import FormatError, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.tables import CLUSTERS, MARKS
from pipeline.steps import labels
from pipeline.steps.labels import Labels, Lookup, binary, by_tombstone, mark_names, write_clusters, write_marks
from tests.support.records import put_table, uid


def uids(*numbers: int) -> pa.Array:
    return pa.array([None if n < 0 else uid(n) for n in numbers], pa.binary(16))


def clustered(root, rows: dict[int, int]):
    """Write dedup's table of uid -> cluster and return what workers see of it."""
    put_table(
        root,
        "dedup",
        "dedup/00000.parquet",
        [{"uid": uid(one), "cluster": uid(other)} for one, other in rows.items()],
        CLUSTERS,
    )
    write_clusters(root, root / "scratch")
    return Labels(root / "scratch")


@pytest.mark.parametrize("rows", [1, 3, 1 << 16])
def test_only_clusters_of_two_and_more_count(tmp_path, monkeypatch, rows):
    """Whatever the pieces in which the table is read."""
    monkeypatch.setattr(labels, "ROWS", rows)
    # 1, 4 and 6 are one cluster, 2 and 3 another, 5 is alone; 7 names a row that names another: nobody else is in it
    found = clustered(tmp_path, {1: 1, 2: 2, 3: 2, 4: 1, 5: 5, 6: 1, 7: 6, 8: 9, 9: 8, 10: 8})
    asked = uids(6, 5, 4, 3, 2, 1, 7, 99, -1, 8, 9, 10)
    expected = [uid(1), None, uid(1), uid(2), uid(2), uid(1), None, None, None, None, uid(8), uid(8)]
    assert found.clusters(asked).to_pylist() == expected
    assert (tmp_path / "scratch" / "clusters.first").stat().st_size == 7 * 8


def test_no_twins_at_all(tmp_path):
    assert clustered(tmp_path, {}).clusters(uids(1, 2)).to_pylist() == [None, None]
    assert clustered(tmp_path, {1: 1}).clusters(uids(1)).to_pylist() == [None]


def test_a_table_out_of_order_is_refused(tmp_path):
    with pytest.raises(FormatError, match="the clusters are not in order of uid"):
        clustered(tmp_path, {2: 2, 1: 2})


def test_uids_that_share_their_first_half_are_told_apart():
    rows = np.array([[1, 5], [7, 1], [7, 2], [7, 9], [8, 0]], np.uint64)
    lookup = Lookup(rows[:, 0].copy(), rows[:, 1].copy(), rows)
    asked = np.array([[7, 9], [7, 2], [7, 3], [8, 0], [8, 1], [9, 9], [0, 0], [1, 5]], np.uint64)
    assert lookup.find(asked).tolist() == [3, 2, -1, 4, -1, -1, -1, 0]
    assert lookup.places(binary(asked)).tolist() == [3, 2, -1, 4, -1, -1, -1, 0]


def test_the_first_mark_counts_and_tombstones_are_known(tmp_path):
    marks = [
        (1, "placeholder", "x"),
        (2, "in_eval_set", "x"),
        (2, "placeholder", "x"),
        (3, "removed", "a list"),
        (4, "near_duplicate", "x"),
        (5, "removed", "tombstone of its sha256"),
        (5, "in_eval_set", None),
        (6, "something else", "tombstone of it"),
        (7, "placeholder", "x"),
    ]
    path = tmp_path / "ledger" / "marks.parquet"
    rows = [{"uid": uid(n), "reason": reason, "detail": detail} for n, reason, detail in marks]
    write_table(path, pa.Table.from_pylist(rows, schema=MARKS))
    files = (FileRecord.of(tmp_path, path),)
    Journal(tmp_path, "dedup").record(ShardRecord("00000", "", files, len(rows), len(rows)))
    write_marks(tmp_path, tmp_path / "scratch", halves(uids(7, 9)))  # these two were removed when they were fetched
    code = Labels(tmp_path / "scratch").marks(uids(1, 2, 3, 4, 5, 6, 7, 8, 9, -1))
    removed = "removed"
    expected = ["placeholder", "placeholder", removed, "near_duplicate", removed, None, removed, None, removed, None]
    assert mark_names(code).to_pylist() == expected
    assert np.flatnonzero(by_tombstone(code)).tolist() == [4, 6, 8]


def test_no_marks_at_all(tmp_path):
    write_marks(tmp_path, tmp_path / "scratch", np.empty((0, 2), np.uint64))
    assert Labels(tmp_path / "scratch").marks(uids(1)).tolist() == [-1]
