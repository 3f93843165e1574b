"""manifests/record_table.py: the same records are the same bytes, and what is not as it was written is no record."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import FormatError, SealError, write_table
from manifests.record_table import FEW, RECORDS, record_bytes, seal_of, stored_records
from manifests.shard_record import FileRecord, ShardRecord

FILES = (FileRecord("pairs/1.tar", "ab", 5), FileRecord("ledger/1.parquet", "cd", 7, "ef"))
ONE = ShardRecord("00001", "k1", FILES, 3, 2, {"size": 1}, {"name": "ü.parquet", "groups": [0, 2]})
NONE = ShardRecord("00000", "k0", (), 1, 0, {"dns": 1})


@pytest.fixture
def path(tmp_path):
    """Return a table of two records of fetch."""
    (tmp_path / "fetch.parquet").write_bytes(record_bytes("fetch", [ONE, NONE]))
    return tmp_path / "fetch.parquet"


def test_records_come_back_by_name_whatever_their_order(path):
    assert list(stored_records(path, "fetch").all.items()) == [("00000", NONE), ("00001", ONE)]
    assert record_bytes("fetch", [NONE, ONE]) == path.read_bytes() != record_bytes("score", [NONE, ONE])


def test_a_row_is_a_file_and_the_first_of_a_shard_says_the_rest(path):
    rows = pq.read_table(path).to_pylist()
    assert [(row["shard"], row["made_under"], row["path"]) for row in rows] == [
        ("00000", "k0", None),
        ("00001", "k1", "pairs/1.tar"),
        ("00001", None, "ledger/1.parquet"),
    ]


def test_the_first_few_are_looked_for_alone(path):
    stored = stored_records(path, "fetch")
    for _ in range(FEW // 2):
        assert [stored.get(name) for name in ("00001", "2")] == [ONE, None]
    assert "all" not in stored.__dict__
    assert [stored.get(name) for name in ("00000", "00001", "2")] == [NONE, ONE, None]
    assert "all" in stored.__dict__


def test_no_byte_can_change_unnoticed(path):
    """A flip that still can be read is one of the file's form: its records are the same."""
    whole, wanted = path.read_bytes(), stored_records(path, "fetch").all
    raised = 0
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0x04
        path.write_bytes(data)
        try:
            assert stored_records(path, "fetch").all == wanted
        except FormatError:
            raised += 1
    assert raised > len(whole) // 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.slice(1), "its seal is not that of its content"),
        (lambda table: table.set_column(8, "bytes", pa.array([None, 6, 7], pa.int64())), "its seal is not that"),
        (lambda table: table.drop_columns("counted"), "not the records of fetch"),
    ],
)
def test_a_table_of_other_content(path, change, says):
    write_table(path, change(pq.read_table(path)))
    with pytest.raises(FormatError, match=says):
        stored_records(path, "fetch")


def test_a_table_of_another_step_or_of_no_records(path):
    with pytest.raises(FormatError, match="not the records of score"):
        stored_records(path, "score")
    path.write_bytes(record_bytes("fetch", []))
    with pytest.raises(FormatError, match="holds no record"):
        stored_records(path, "fetch")
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="not a Parquet table"):
        stored_records(path, "fetch")


def test_a_sealed_table_of_what_is_no_record_says_so(path):
    table = pq.read_table(path)
    table = table.set_column(2, "rows_in", pa.array([9, 9, None], pa.int64()))
    metadata = {**table.schema.metadata, b"tessera_seal": seal_of("fetch", table).encode()}
    write_table(path, table.replace_schema_metadata(metadata))
    stored = stored_records(path, "fetch")
    for use in (lambda: stored.get("00000"), lambda: stored.all):
        with pytest.raises(FormatError, match="not the records of a step"):
            use()


def test_the_seal_is_of_lengths_numbers_and_texts_however_they_lie():
    table = pa.table({"shard": ["ab", None, ""], "bytes": [1, None, 3]})
    lengths = b"".join(n.to_bytes(8, "little", signed=True) for n in (2, -1, 0))
    numbers = b"".join(n.to_bytes(8, "little", signed=True) for n in (1, -(1 << 63), 3))
    wanted = hashlib.sha256(b"x\nshard\n" + lengths + b"ab" + b"bytes\n" + numbers).hexdigest()
    assert seal_of("x", table) == wanted
    assert seal_of("x", pa.concat_tables([table.slice(0, 1), table.slice(1)])) == wanted
    assert issubclass(SealError, FormatError)
    assert RECORDS.names[0] == "shard"
