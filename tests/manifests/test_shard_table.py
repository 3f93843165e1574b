"""manifests/shard_table.py: what a manifest says of its files, as a table and as what its digest is made of."""

import json

import pyarrow as pa
import pytest

from manifests.shard_record import FileRecord, ShardRecord
from manifests.shard_table import SHARDS, entries_json, files_of, from_entries, shard_table

HISTORY = FileRecord("ledger/fetch/0.parquet", "cd", 7, "ef")
FETCH = ShardRecord("0", "k", (FileRecord("pairs/0.tar", "ab", 5), HISTORY), 3, 2, {"dns": 1})
ODD = ShardRecord('a"b\\c\n-ü', "k", (FileRecord('codes/"\\\t.tar', "01", 1),), 1, 1)
EMPTY = ShardRecord("1", "k", (), 1, 0, {"dns": 1})


def plain(table):
    return json.loads(b"".join(entries_json(table)))


def test_a_file_is_a_row():
    table = shard_table({"fetch": [FETCH, EMPTY], "pack": [ODD]})
    assert [(row["step"], row["shard"], row["path"]) for row in table.to_pylist()] == [
        ("fetch", "0", "pairs/0.tar"),
        ("fetch", "0", "ledger/fetch/0.parquet"),
        ("pack", ODD.shard, ODD.files[0].path),
    ]
    assert files_of(table, "fetch").num_rows == 2
    assert files_of(table, "fetch", "1").num_rows == 0
    assert shard_table({}).schema == shard_table({"score": [EMPTY]}).schema == SHARDS


def test_what_counts_of_a_file_is_canonical_json(monkeypatch):
    table = shard_table({"fetch": [FETCH], "pack": [ODD]})
    rows = {"rows_in": 3, "rows_out": 2, "shard": "0", "step": "fetch"}
    odd = {"bytes": 1, "path": ODD.files[0].path, "rows_in": 1, "rows_out": 1, "sha256": "01"}
    wanted = [
        {"bytes": 5, "path": "pairs/0.tar", "sha256": "ab", **rows},
        {"path": "ledger/fetch/0.parquet", "sha256": "ef", **rows},
        {**odd, "shard": ODD.shard, "step": "pack"},
    ]
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert b"".join(entries_json(table)) == text
    monkeypatch.setattr("manifests.shard_table.ROW_GROUP_ROWS", 1)
    assert b"".join(entries_json(table)) == text
    assert plain(shard_table({})) == []


def test_a_list_of_before_is_the_same_table():
    table = shard_table({"fetch": [FETCH]})
    entries = table.to_pylist()
    assert from_entries(entries).equals(table)
    del entries[0]["counted"]  # before files had one
    assert from_entries(entries).equals(table)


@pytest.mark.parametrize("change", [{"bytes": None}, {"bytes": "5"}, {"path": 3}])
def test_a_list_that_lacks_something_or_holds_something_else(change):
    with pytest.raises((ValueError, pa.ArrowException)):
        from_entries([{**shard_table({"fetch": [FETCH]}).to_pylist()[0], **change}])
