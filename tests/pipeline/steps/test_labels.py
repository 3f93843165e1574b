"""Clusters and marks are looked up by uid in mapped files."""

import numpy as np
import pyarrow as pa

from filters.survivors import halves
from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.tables import MARKS
from pipeline.steps.labels import (
    CLUSTERS,
    Labels,
    Lookup,
    LookupWriter,
    binary,
    by_tombstone,
    mark_names,
    write_marks,
)
from tests.support.records import uid


def uids(*numbers: int) -> pa.Array:
    return pa.array([None if n < 0 else uid(n) for n in numbers], pa.binary(16))


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


def test_clusters_of_rows_and_none(tmp_path):
    writer, found = LookupWriter(tmp_path, CLUSTERS), Labels(tmp_path)
    assert found.clusters(uids(1, 2)).to_pylist() == [None, None]
    writer.add(halves(uids(1, 3)), halves(uids(1, 1)))
    writer.add(halves(uids(4)), halves(uids(2)))
    assert found.clusters(uids(4, 2, 3, -1, 1)).to_pylist() == [uid(2), None, uid(1), None, uid(1)]
