"""pipeline/execution/redaction.py: rows go out of tables, tars, logs and records; every other row stays as it was."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import FormatError, write_table
from manifests.journal import FileRecord, ShardRecord
from manifests.shards import Index, index_path, read_shard, write_shard
from pipeline.execution.redaction import (
    DamagedFileError,
    RemovedRows,
    domains,
    from_lines,
    from_table,
    from_tar,
    from_unit,
    holds,
    measured_again,
    need_whole,
    written_schema,
)
from tests.support.records import uid

URLS = frozenset({"http://a.test/5.jpg", "http://a.test/é.jpg", "pictures/2.jpg"})


def removed(*numbers, **more):
    return RemovedRows(frozenset(map(uid, numbers)), **more)


def table_of(numbers, **columns):
    return pa.table({"uid": pa.array(map(uid, numbers), pa.binary(16)), **columns})


def samples(numbers):
    return [(uid(number).hex(), {"jpg": b"picture %d" % number, "json": b"{}"}) for number in numbers]


def unit_of(root, numbers, reasons=None):
    """Write a table and an indexed tar of these rows and return their record; `reasons`: why a row has no sample."""
    reasons = reasons or {}
    table = table_of(numbers, reason=[reasons.get(number) for number in numbers])
    write_table(root / "pairs" / "0.parquet", table)
    kept = [number for number in numbers if number not in reasons]
    write_shard(root / "pairs" / "0.tar", samples(kept), index=True)
    files = [FileRecord.of(root, root / "pairs" / name) for name in ("0.parquet", "0.tar", "0.index.json")]
    return ShardRecord("0", "key", tuple(files), len(numbers), len(kept), dict(Counter(reasons.values())))


@pytest.mark.parametrize("columns", [("uid",), ("key",), ("uid", "key")])
def test_rows_are_known_by_uid_or_key(columns):
    values = {"uid": pa.array([uid(1), None, uid(3)], pa.binary(16)), "key": [uid(1).hex(), None, uid(3).hex()]}
    table = pa.table({name: values[name] for name in columns})
    assert removed(3, 9).rows(table).to_pylist() == [False, False, True]


def test_a_table_without_uids_holds_nothing_that_goes():
    assert removed(1).rows(pa.table({"name": ["a", "b"]})).to_pylist() == [False, False]


def test_uids_of_variable_length_are_compared_too():
    assert removed(1).rows(pa.table({"uid": pa.array([uid(1), uid(2)], pa.binary())})).to_pylist() == [True, False]


def test_a_host_lies_in_its_domains():
    assert domains("a.b.test") == ["a.b.test", "b.test", "test"]
    assert domains("test") == ["test"]


LINES = {
    f'{{"uid": "{uid(5).hex()}"}}': True,
    uid(15).hex().upper(): False,
    f"shard {uid(5).hex().upper()}!": True,
    f"0{uid(5).hex()}": False,  # 33 hex digits are another number
    "asked http://a.test/5.jpg": True,
    "asked http://a.test/55.jpg, http://a.test/5.jpg": True,
    "asked http://a.test/4.jpg": False,
    "xhttp://a.test/5.jpg": False,
    '{"url": "http://a.test/\\u00e9.jpg"}': True,
    "read pictures/2.jpg": True,
    "cdn.gone.test rests": True,
    "GONE.test rests": True,
    "notgone.test and gone.test.example rest": False,
}


@pytest.mark.parametrize(("line", "goes"), LINES.items())
def test_a_line_speaks_of_a_row_by_uid_url_or_host(line, goes):
    assert removed(5, urls=URLS, hosts=frozenset({"gone.test"})).speaks(line.encode()) is goes


def test_a_line_of_other_bytes_is_looked_into():
    assert removed(5).speaks(b"\xff\xfe " + uid(5).hex().encode())
    assert not removed(5).speaks(b"\xff\xfe")


def test_tables_and_tars_may_hold_rows_and_other_files_do_not(tmp_path):
    write_table(tmp_path / "a.parquet", table_of([1, 2]))
    write_shard(tmp_path / "a.tar", samples([1, 2]))
    (tmp_path / "a.json").write_text(uid(2).hex())
    write_table(tmp_path / "b.parquet", pa.table({"name": ["a"]}))
    names = ("a.parquet", "a.tar", "a.json", "b.parquet")
    assert [holds(tmp_path / name, removed(2)) for name in names] == [True, True, False, False]
    assert [holds(tmp_path / name, removed(3)) for name in names] == [False, False, False, False]


def test_a_table_loses_rows_and_keeps_schema_metadata_and_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    tiers = pa.array([["x"], [], ["y", "z"], None, ["x"]], pa.list_(pa.field("tier", pa.string())))
    table = table_of([1, 2, 3, 4, 5], tiers=tiers).replace_schema_metadata({"says": "hello"})
    write_table(path, table, row_group_rows=2)
    rows = removed(2, 9)
    taken = from_table(path, rows, "pairs/*.parquet")
    assert taken["uid"].to_pylist() == [uid(2)]
    with pq.ParquetFile(path) as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 2]
        assert file.schema_arrow.metadata[b"says"] == b"hello"
        assert written_schema(file).field("tiers").type.value_field.name == "tier"
    assert pq.read_table(path)["tiers"].to_pylist() == [["x"], ["y", "z"], None, ["x"]]
    assert rows.counts == {"pairs/*.parquet": 1}


def test_a_table_without_the_rows_is_not_written(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, table_of([1, 2]))
    before = path.stat().st_ino
    rows = removed(3)
    assert from_table(path, rows, "x") is None
    assert (path.stat().st_ino, rows.counts) == (before, {})


def test_a_table_that_loses_all_its_rows_is_an_empty_table(tmp_path):
    write_table(tmp_path / "a.parquet", table_of([1]))
    from_table(tmp_path / "a.parquet", removed(1), "x")
    table = pq.read_table(tmp_path / "a.parquet")
    assert (table.num_rows, table.schema.field("uid").type) == (0, pa.binary(16))


def test_a_schema_that_no_arrow_wrote_is_the_one_parquet_has(tmp_path):
    pq.write_table(pa.table({"n": pa.array([1], pa.int64())}), tmp_path / "a.parquet", store_schema=False)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        assert written_schema(file) == pa.schema([("n", pa.int64())])


def test_a_tar_loses_samples_and_its_index_is_written_anew(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, samples([1, 2, 3]), index=True)
    rows = removed(2)
    assert from_tar(path, rows, "pairs/*.tar") == 1
    assert [key for key, _ in read_shard(path)] == [uid(1).hex(), uid(3).hex()]
    assert dict(read_shard(path))[uid(3).hex()]["jpg"] == b"picture 3"
    assert Index.read(index_path(path)).samples == 2
    assert rows.counts == {"pairs/*.tar": 1}


def test_a_tar_without_an_index_gets_none(tmp_path):
    write_shard(tmp_path / "a.tar", samples([1, 2]))
    assert from_tar(tmp_path / "a.tar", removed(1), "x") == 1
    assert not index_path(tmp_path / "a.tar").exists()
    assert from_tar(tmp_path / "a.tar", removed(1), "x") == 0


def test_lines_that_speak_of_a_row_go(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"one\r\n" + uid(1).hex().encode() + b"\nlast")
    rows = removed(1)
    assert from_lines(path, rows, "logs") == 1
    assert path.read_bytes() == b"one\r\nlast"
    assert from_lines(path, rows, "logs") == 0
    assert rows.counts == {"logs": 1}


def test_a_unit_loses_rows_and_its_record_counts_those_that_stay(tmp_path):
    record = unit_of(tmp_path, [1, 2, 3, 4, 5], {2: "http_404", 4: "http_404", 5: "timeout"})
    assert (record.rows_in, record.rows_out, record.dropped) == (5, 2, {"http_404": 2, "timeout": 1})
    rows = removed(1, 2, 5)
    after = from_unit(tmp_path, record, rows, "reason")
    assert (after.rows_in, after.rows_out, after.dropped, after.key) == (2, 1, {"http_404": 1}, "key")
    assert rows.counts == {"pairs/*.parquet": 3, "pairs/*.tar": 1}
    assert [file.sha256 for file in after.files] != [file.sha256 for file in record.files]
    need_whole(tmp_path, after.files)


def test_a_unit_that_holds_none_of_the_rows_keeps_its_record(tmp_path):
    record = unit_of(tmp_path, [1, 2])
    assert from_unit(tmp_path, record, removed(3), "reason") is record


def test_a_unit_of_which_only_the_table_holds_the_row_keeps_its_tar(tmp_path):
    record = unit_of(tmp_path, [1, 2], {2: "timeout"})
    after = from_unit(tmp_path, record, removed(2), "reason")
    assert (after.rows_in, after.rows_out, after.dropped) == (1, 1, {})
    assert after.files[0] != record.files[0]
    assert after.files[1:] == record.files[1:]


@pytest.mark.parametrize("name", ["0.parquet", "0.index.json"])
def test_a_damaged_unit_is_not_written_anew(tmp_path, name):
    record = unit_of(tmp_path, [1, 2])
    path = tmp_path / "pairs" / name
    if name.endswith(".json"):
        path.write_text("{}")
    else:
        write_table(path, table_of([1, 2, 3]))
    with pytest.raises(DamagedFileError, match=f"{path} is damaged: it has not the sha256"):
        from_unit(tmp_path, record, removed(1), "reason")
    assert len(list(read_shard(tmp_path / "pairs" / "0.tar"))) == 2


def test_files_written_anew_are_measured_and_keep_what_stands_for_them_in_digests(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "b.txt").write_bytes(b"abc")
    files = (FileRecord("a.txt", "old", 9, "counted"), FileRecord("b.txt", "old", 9))
    after = measured_again(tmp_path, ShardRecord("0", "key", files, 1, 1), [tmp_path / "a.txt"])
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert after.files == (FileRecord("a.txt", abc, 3, "counted"), FileRecord("b.txt", "old", 9))


@pytest.mark.parametrize("name", ["a.parquet", "a.tar"])
def test_what_cannot_be_parsed_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"junk" * 200)
    with pytest.raises(FormatError, match=f"{tmp_path / name}: "):
        holds(tmp_path / name, removed(1))
    assert issubclass(DamagedFileError, FormatError)
