"""Removed rows in tables made of the input: they keep their place and say nothing but `removed`."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.checksums import sha256_file
from manifests.files import FormatError, read_json, write_json
from manifests.journal import Journal, ShardRecord, records_of
from manifests.tombstones import TABLE, Tombstones
from pipeline.inputs.parquet import RowGroups
from pipeline.inputs.redact_table import blank_input, blank_rows

MAPPING = {"url": "path", "text": "words"}
REMOVED = {"path": None, "words": None, "n": None, "tessera_fault": "removed"}


def tombstones(**row):
    return Tombstones(pa.Table.from_pylist([{"kind": "uid", "value_sha256": "00" * 32, **row}], schema=TABLE))


NOBODY = tombstones(uid=bytes(16))


@pytest.fixture
def path(tmp_path):
    """Three rows in groups of two and one."""
    texts = {"path": ["p0", "p1", None], "words": ["w0", "w1", None], "n": pa.array([0, 1, 2])}
    table = pa.table({**texts, "tessera_fault": pa.array([None, None, "broken_line"])})
    (tmp_path / "manifests" / "input").mkdir(parents=True)
    pq.write_table(table, tmp_path / "manifests" / "input" / "t.parquet", row_group_size=2)
    return tmp_path / "manifests" / "input" / "t.parquet"


def rows(path):
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ({"source": "a.jsonl", "source_row": 1}, 1),
        ({"source": "a.jsonl", "source_row": 2}, 2),  # counted over groups
        ({"uid": hashlib.md5(b"p0\nw0").digest()}, 0),  # uid: md5 of URL, newline, text
        ({"kind": "url", "value_sha256": hashlib.sha256(b"p1").hexdigest()}, 1),
    ],
)
def test_a_removed_row_is_blank_and_the_others_stay(path, row, number):
    expected = rows(path)
    expected[number] = REMOVED
    assert blank_rows(path, "a.jsonl", MAPPING, tombstones(**row)) == 1
    assert rows(path) == expected
    with pq.ParquetFile(path) as file:
        assert [file.metadata.row_group(group).num_rows for group in range(2)] == [2, 1]


def test_what_is_blank_is_not_written_again(path):
    gone = tombstones(source="a.jsonl", source_row=1)
    blank_rows(path, "a.jsonl", MAPPING, gone)
    before = path.stat().st_ino
    assert blank_rows(path, "a.jsonl", MAPPING, gone) == 0
    assert blank_rows(path, "b.jsonl", MAPPING, tombstones(source="a.jsonl", source_row=0)) == 0
    assert path.stat().st_ino == before


def test_a_damaged_table_is_a_format_error_and_stays(path):
    path.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(FormatError, match=r"^t\.parquet: ."):
        blank_rows(path, "a.jsonl", MAPPING, NOBODY)
    assert path.read_bytes() == b"PAR1 no table PAR1"


def test_a_table_that_is_gone_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        blank_rows(tmp_path / "none.parquet", "a.jsonl", MAPPING, NOBODY)


def test_the_list_and_what_units_have_read_follow(path, tmp_path):
    other = {"name": "b.parquet", "url": "/in/b.parquet"}
    made = {"name": "a.jsonl", "made": ["manifests/input/t.parquet", "old", 1]}
    gone = {"name": "c.jsonl", "made": ["manifests/input/gone.parquet", "old", 1]}
    write_json(tmp_path / "manifests" / "input.json", {"files": [made, other, gone]}, sealed=True)
    for name, source in (("00000", "a.jsonl"), ("00001", "b.parquet")):
        read = {"name": source, "groups": [0, 1], "columns": ["path"], "sha256": "old"}
        Journal(tmp_path, "select").record(ShardRecord(name, "key", (), 2, 2, {}, read))
    assert blank_input(tmp_path, MAPPING, tombstones(source="a.jsonl", source_row=0)) == 1
    now = ["manifests/input/t.parquet", sha256_file(path), path.stat().st_size]
    assert read_json(tmp_path / "manifests" / "input.json")["files"] == [{**made, "made": now}, other, gone]
    with RowGroups(str(path)) as file:
        first = file.digest([0], ["path"])
    assert [record.read["sha256"] for record in records_of(tmp_path, "select")] == [first, "old"]


def test_a_run_without_made_tables_has_nothing_to_blank(tmp_path):
    assert blank_input(tmp_path, MAPPING, NOBODY) == 0
    assert not (tmp_path / "manifests").exists()
