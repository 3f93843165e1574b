"""Clusters meet in parts: who loses does not depend on how many there are, nor on the order of the rows."""

import numpy as np
import pyarrow as pa
import pytest

from filters.survivors import Candidates
from manifests.journal import FileRecord, Journal, ShardRecord
from pipeline.execution import shuffle
from pipeline.steps.arrow_files import write_arrow
from pipeline.steps.contest import Losers, Rivals, losers_of
from pipeline.steps.evaluate import contested, scratch_of
from tests.support.undecided import undecided_recipe


def rivals(rows: list[tuple[int, int, float]]) -> Candidates:
    """Return candidates of (cluster, uid, aesthetic): numbers are the highest byte of either."""
    cluster, uid = (np.array([[row[n] << 56, 0] for row in rows], np.uint64).reshape(-1, 2) for n in (0, 1))
    return Candidates(
        cluster,
        uid,
        np.zeros(len(rows), np.int16),
        np.array([row[2] for row in rows], np.float32),
        np.full(len(rows), 100, np.int64),
    )


UNITS = (
    [(200, 1, 5.0), (10, 2, 5.0), (200, 3, 6.0)],  # rows 0, 1 and 2 of unit 0
    [],
    [(10, 4, 5.0), (90, 5, 1.0), (200, 6, np.nan), (255, 7, 2.0)],
)


@pytest.mark.parametrize("slice_bytes", [1 << 20, 60], ids=["one part", "seven parts"])
def test_the_best_of_each_cluster_stays(tmp_path, monkeypatch, slice_bytes):
    monkeypatch.setattr(shuffle, "SLICE_BYTES", slice_bytes)
    scratch = scratch_of(tmp_path)
    for number, rows in enumerate(UNITS):
        paths = [scratch / "evaluated" / f"{number:05d}.arrow", scratch / "contested" / f"{number:05d}.arrow"]
        write_arrow(paths[0], pa.table({"code": [0]}))
        homes = (np.int64(number) << 32) | np.arange(len(rows))
        write_arrow(paths[1], contested(rivals(rows), homes))
        files = tuple(FileRecord.of(scratch, path) for path in paths)
        Journal(scratch, "evaluate").record(
            ShardRecord(f"{number:05d}", "", files, 1, 1, read={"contested": len(rows)})
        )
    recipe = undecided_recipe(tmp_path)
    leg = Rivals(recipe, tmp_path)
    assert (leg.rows(), leg.parts()) == (7, 1 if slice_bytes > 1000 else 7)  # 54 bytes a row
    Losers(recipe, tmp_path).make()
    # 200: unit 0's row 2 has 6.0; 10: equal but for the uid; 90 and 255 are alone
    assert [losers_of(scratch, number).tolist() for number in range(4)] == [[0], [], [0, 2], []]
    assert not leg.folder.exists()
