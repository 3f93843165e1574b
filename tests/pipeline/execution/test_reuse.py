"""pipeline/execution/reuse.py: what an earlier plan made is carried over only where it was made the same way and is
whole."""

import pyarrow as pa

from manifests.files import write_table
from manifests.journal import FileRecord, ShardRecord
from pipeline.execution.reuse import earlier_rows, let_go, set_aside, stamp

UIDS = [bytes([number]) * 16 for number in range(4)]


def record(root, name, uids, made_by, value):
    table = pa.table(
        {"uid": pa.array(uids, pa.binary(16)), "reason": ["worker_died" if uid == UIDS[3] else None for uid in uids]}
    )
    path = root / "scores" / f"{name}.parquet"
    write_table(path, stamp(table.append_column("value", pa.array([value] * len(uids))), made_by))
    return ShardRecord(name, "key", (FileRecord.of(root, path),), len(uids), len(uids))


def values(root, made_by, uids=UIDS):
    return {uid: row["value"] for uid, row in earlier_rows(root, "score", made_by, uids).items()}


def test_rows_made_the_same_way_are_found_and_no_dead_workers(tmp_path):
    set_aside(tmp_path, "score", [record(tmp_path, "0", UIDS[:2], "one", 1), record(tmp_path, "1", UIDS[2:], "one", 2)])
    set_aside(tmp_path, "score", [record(tmp_path, "2", UIDS[:1], "two", 3)])
    assert values(tmp_path, "one") == {UIDS[0]: 1, UIDS[1]: 1, UIDS[2]: 2}
    assert values(tmp_path, "one", UIDS[1:2]) == {UIDS[1]: 1}
    assert values(tmp_path, "two") == {UIDS[0]: 3}
    assert values(tmp_path, "three") == {}


def test_a_damaged_file_is_not_set_aside_and_what_was_outlives_its_shard(tmp_path):
    whole, damaged = record(tmp_path, "0", UIDS[:1], "one", 1), record(tmp_path, "1", UIDS[1:2], "one", 2)
    (tmp_path / "scores/1.parquet").write_bytes(b"PAR1")
    set_aside(tmp_path, "score", [whole, damaged])
    (tmp_path / "scores/0.parquet").unlink()
    assert values(tmp_path, "one") == {UIDS[0]: 1}


def test_letting_go_leaves_nothing(tmp_path):
    set_aside(tmp_path, "score", [record(tmp_path, "0", UIDS[:1], "one", 1)])
    let_go(tmp_path, "score")
    assert values(tmp_path, "one") == {}
    assert not (tmp_path / ".earlier").exists()
