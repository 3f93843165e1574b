"""Which rows have twins is found in runs of dedup's table; rows without any take no room in what is found."""

import random

import numpy as np
import pyarrow as pa
import pytest

from filters.survivors import halves
from manifests import files
from manifests.files import FormatError, writing_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.tables import CLUSTERS
from pipeline.execution.shuffle import here
from pipeline.steps import twins
from pipeline.steps.evaluate import scratch_of
from pipeline.steps.labels import Labels, binary
from pipeline.steps.twins import Namers, Runs, Twins, write_clusters
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.records import uid
from tests.support.undecided import undecided_recipe


def uids(*numbers: int) -> pa.Array:
    return pa.array([None if n < 0 else uid(n) for n in numbers], pa.binary(16))


def put_clusters(root, rows: dict[bytes, bytes], group: int, monkeypatch) -> None:
    """Write dedup's table of uid -> cluster in groups of some rows."""
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", group)
    path = root / "dedup" / "00000.parquet"
    with writing_table(path, CLUSTERS) as writer:
        writer.write(pa.table([list(rows), list(rows.values())], schema=CLUSTERS))
    of = (FileRecord.of(root, path),)
    Journal(root, "dedup").record(ShardRecord("00000", "", of, len(rows), len(rows)))


def clustered(root, rows: dict[int, int], monkeypatch, group: int = 65_536) -> Labels:
    """Find what workers see of these clusters."""
    put_clusters(root, {uid(one): uid(other) for one, other in rows.items()}, group, monkeypatch)
    Twins(undecided_recipe(root), root).make()
    write_clusters(scratch_of(root))
    return Labels(scratch_of(root))


@pytest.mark.parametrize("group", [1, 3, 65_536])
@pytest.mark.parametrize("run", [1, 2])
def test_only_clusters_of_two_and_more_count(tmp_path, monkeypatch, group, run):
    """Whatever the runs in which the table is read, and the clusters that are counted at a time."""
    monkeypatch.setattr(twins, "RUN_GROUPS", run)
    monkeypatch.setattr(twins, "HELD_ROWS", 1)
    # 1, 4 and 6 are one cluster, 2 and 3 another, 5 is alone; 7 names a row that names another: nobody else is in it
    found = clustered(
        tmp_path, {1: 1, 2: 2, 3: 2, 4: 1, 5: 5, 6: 1, 7: 6, 8: 9, 9: 8, 10: 8, 11: 99}, monkeypatch, group
    )
    asked = uids(6, 5, 4, 3, 2, 1, 7, 99, -1, 8, 9, 10, 11)
    expected = [uid(1), None, uid(1), uid(2), uid(2), uid(1), None, None, None, None, uid(8), uid(8), None]
    assert found.clusters(asked).to_pylist() == expected
    assert (scratch_of(tmp_path) / "clusters.first").stat().st_size == 7 * 8
    assert not Namers(undecided_recipe(tmp_path), tmp_path).folder.exists()


def test_as_counting_over_all_rows_has_it(tmp_path, monkeypatch):
    draw = random.Random(5)
    rows = {n: n if draw.random() < 0.4 else draw.randrange(250) for n in range(200)}
    found = clustered(tmp_path, rows, monkeypatch, 7)
    several = [rows[n] if list(rows.values()).count(rows[n]) > 1 else None for n in rows]
    assert found.clusters(uids(*rows)).to_pylist() == [None if one is None else uid(one) for one in several]


@pytest.mark.parametrize("run", [1, 4])
def test_beams_grouping_finds_what_one_machine_finds(tmp_path, monkeypatch, run):
    """29 row groups, in 29 runs and in 8."""
    draw = random.Random(6)
    rows = {n: n if draw.random() < 0.4 else draw.randrange(250) for n in range(200)}
    bytes_of = []
    for name, do in (("alone", here), ("together", on_beam)):
        monkeypatch.setattr(twins, "RUN_GROUPS", 29 if name == "alone" else run)
        root = tmp_path / name
        put_clusters(root, {uid(one): uid(other) for one, other in rows.items()}, 7, monkeypatch)
        with as_on_a_cluster():
            Twins(undecided_recipe(root), root).make(do, grouped=name == "together")
        write_clusters(scratch_of(root))
        bytes_of.append([path.read_bytes() for path in sorted(scratch_of(root).glob("clusters.*"))])
    assert len(bytes_of[0]) == 3
    assert bytes_of[0] == bytes_of[1]


def test_no_twins_at_all(tmp_path, monkeypatch):
    assert clustered(tmp_path / "a", {}, monkeypatch).clusters(uids(1, 2)).to_pylist() == [None, None]
    assert clustered(tmp_path / "b", {1: 1}, monkeypatch).clusters(uids(1)).to_pylist() == [None]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("order", [(2, 1, 3, 4), (1, 2, 4, 3), (1, 3, 2, 4), (1, 2, 2, 3)])
def test_a_table_out_of_order_is_refused(tmp_path, monkeypatch, group, order):
    monkeypatch.setattr(twins, "RUN_GROUPS", 1)
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", group)
    path = tmp_path / "dedup" / "00000.parquet"
    with writing_table(path, CLUSTERS) as writer:
        writer.write(pa.table([uids(*order), uids(*order)], schema=CLUSTERS))
    of = (FileRecord.of(tmp_path, path),)
    Journal(tmp_path, "dedup").record(ShardRecord("00000", "", of, 4, 4))
    with pytest.raises(FormatError, match="the clusters are not in order of uid"):
        Twins(undecided_recipe(tmp_path), tmp_path).make()


def test_runs_begin_where_a_uid_does_also_among_uids_that_share_their_first_half(tmp_path, monkeypatch):
    rows = np.array([[1, 5], [7, 1], [7, 2], [7, 9], [8, 0]], np.uint64)
    put_clusters(tmp_path, {one: one for one in binary(rows).to_pylist()}, 1, monkeypatch)
    runs = Runs.of(tmp_path, 1)
    assert (len(runs.groups), runs.rows) == (5, 5)
    assert runs.first.tolist() == rows.tolist()
    asked = np.array([[0, 0], [1, 5], [1, 6], [7, 0], [7, 1], [7, 3], [7, 10], [8, 0], [9, 9]], np.uint64)
    assert runs.parts_of(asked).tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4]
    assert halves(binary(runs.read(2)[0])).tolist() == [[7, 2]]
