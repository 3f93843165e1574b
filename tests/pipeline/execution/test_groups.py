"""pipeline/execution/groups.py: rows of several groups become one, whatever columns and files each of them has."""

import pyarrow as pa
import pytest

from manifests.aside import Group, read_group
from manifests.files import read_table, write_table
from manifests.journal import FileRecord
from manifests.shards import read_shard, write_shard
from pipeline.execution.groups import copy_rows, copy_samples, put_together
from tests.support.records import uid


@pytest.fixture
def root(anywhere):
    return anywhere


def table(numbers, **columns):
    return pa.table({"uid": pa.array([uid(number) for number in numbers], pa.binary(16)), **columns})


def group(folder, name, numbers, *, tar=True):
    write_table(folder / f"{name}-ledger.parquet", table(numbers, value=[name] * len(numbers)))
    if tar:
        write_shard(folder / f"{name}-pairs.tar", [(uid(n).hex(), {"jpg": b"%d" % n}) for n in numbers])
    files = tuple(FileRecord.of(folder, path) for path in sorted(folder.glob(f"{name}-*")))
    return Group(folder, name, "fetch", "made", len(numbers), f"{name}-ledger.parquet", files)


def test_rows_of_two_groups_are_put_together(root):
    parts = [
        (group(root / "a" / "fetch", "one", [0, 1, 2]), frozenset([uid(0), uid(2)])),
        (group(root / "a" / "fetch", "two", [3, 4], tar=False), frozenset([uid(4)])),
    ]
    made = put_together(root / "b" / "fetch", parts)
    assert (made.rows, made.step, made.made_by, made.damaged()) == (3, "fetch", "made", [])
    assert read_group(made.path) == made
    rows = read_table(made.folder / made.table).to_pylist()
    assert [(row["uid"], row["value"]) for row in rows] == [(uid(0), "one"), (uid(2), "one"), (uid(4), "two")]
    (tar,) = made.folder.glob("*.tar")
    assert [key for key, _ in read_shard(tar)] == [uid(0).hex(), uid(2).hex()]
    again = put_together(root / "c" / "fetch", parts)
    assert (again.name, again.files) == (made.name, made.files)


def test_samples_of_a_tar_are_copied_with_all_their_members(root):
    samples = [(uid(n).hex(), {"jpg": b"j%d" % n, "json": b"{}", "txt": b"t"}) for n in range(3)]
    write_shard(root / "a.tar", samples)
    write_shard(root / "b.tar", [(uid(7).hex(), {"jpg": b"7"})])
    sources = [(root / "a.tar", frozenset([uid(2), uid(0)])), (root / "b.tar", frozenset([uid(7)]))]
    copy_samples(root / "c.tar", sources)
    assert list(read_shard(root / "c.tar")) == [samples[0], samples[2], (uid(7).hex(), {"jpg": b"7"})]


def test_a_column_that_came_later_is_null_for_rows_of_before(root):
    said = pa.array([["a", "b"]], pa.list_(pa.string()))
    write_table(root / "old.parquet", table([0], said=said))
    write_table(root / "new.parquet", table([1], dtype=["bf16"], said=said))
    sources = [(root / "old.parquet", frozenset([uid(0)])), (root / "new.parquet", frozenset([uid(1)]))]
    copy_rows(root / "both.parquet", sources)
    assert read_table(root / "both.parquet").to_pylist() == [
        {"uid": uid(0), "said": ["a", "b"], "dtype": None},
        {"uid": uid(1), "said": ["a", "b"], "dtype": "bf16"},
    ]


@pytest.mark.parametrize("rows", [1, 2])
def test_row_groups_are_read_one_at_a_time_and_embeddings_stay(root, rows):
    flat = pa.array([float(n) for n in range(8)], pa.float32()).cast(pa.float16())
    column = pa.FixedSizeListArray.from_arrays(flat, 2)
    write_table(root / "a.parquet", table(range(4), embedding=column), row_group_rows=rows)
    copy_rows(root / "b.parquet", [(root / "a.parquet", frozenset([uid(1), uid(3)]))])
    assert [row["embedding"] for row in read_table(root / "b.parquet").to_pylist()] == [[2.0, 3.0], [6.0, 7.0]]
