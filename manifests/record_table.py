"""Keep the records of a step's finished units in one sealed Parquet table, which is the same for the same records."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.files import FORMAT, ROW_GROUP_ROWS, FormatError, SealError, parsing, read_table
from manifests.regular_files import open_plain
from manifests.shard_record import FileRecord, ShardRecord

STEP_NAME, TABLE_SEAL = b"tessera_step", b"tessera_seal"
"""Keys of the table's metadata: whose records these are, and the digest of step and content."""
RECORDS = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("made_under", pa.string(), metadata={"says": "the unit's key; null but in the first row of a shard"}),
        pa.field("rows_in", pa.int64(), metadata={"says": "null but in the first row of a shard"}),
        pa.field("rows_out", pa.int64(), metadata={"says": "null but in the first row of a shard"}),
        pa.field("dropped", pa.string(), metadata={"says": "JSON, reason: rows; null but in the first row of a shard"}),
        pa.field("read", pa.string(), metadata={"says": "JSON; null but in the first row of a shard"}),
        pa.field("path", pa.string(), metadata={"says": "null where the shard has no file"}),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("counted", pa.string()),
    ]
)
"""A row a file, in order of shards; a shard without files has a row too."""
FEW = 8
"""Records that are looked for one by one before all are made."""
_NOTHING = -(1 << 63)


def record_bytes(step: str, records: Iterable[ShardRecord]) -> bytes:
    """Return the Parquet file of a step's records: by name, with their seal."""
    rows = [row for record in sorted(records, key=lambda record: record.shard) for row in _rows(record)]
    columns = zip(*rows, strict=True) if rows else ([] for _ in RECORDS)
    table = pa.table([pa.array(one, of.type) for one, of in zip(columns, RECORDS, strict=True)], schema=RECORDS)
    metadata = {STEP_NAME: step.encode(), TABLE_SEAL: seal_of(step, table).encode()}
    table = table.replace_schema_metadata({**metadata, b"tessera_format": str(FORMAT).encode()})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return file.getvalue()


class StoredRecords:
    """The records of a step as its table at `path` holds them. Any use may raise FormatError: what is no record."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path, self.asked = path, 0
        self._table: pa.Table | None = table

    @cached_property
    def all(self) -> dict[str, ShardRecord]:
        """Return shard -> record, by name."""
        table, self._table = self._table, None
        with parsing(self.path, "not the records of a step"):
            return {record.shard: record for record in _records(table)}

    def get(self, shard: str) -> ShardRecord | None:
        """Return a shard's record, None where there is none: the first few are looked for alone."""
        self.asked += 1
        if self._table is None or self.asked > FEW:
            return self.all.get(shard)
        with parsing(self.path, "not the records of a step"):
            return next(_records(self._table.filter(pc.equal(self._table["shard"], shard))), None)


def stored_records(path: Path, step: str) -> StoredRecords:
    """Return a step's records.

    Raises FormatError for a table that is damaged, another step's or empty, SealError where it was changed, OSError.
    """
    open_plain(path).close()
    table = read_table(path)
    said = table.schema.metadata or {}
    if table.schema.remove_metadata() != RECORDS.remove_metadata() or said.get(STEP_NAME) != step.encode():
        raise FormatError(f"{path}: not the records of {step}")
    if said.get(TABLE_SEAL) != (seal := seal_of(step, table)).encode():
        raise SealError(f"{path}: its seal is not that of its content, {seal}: the file was changed since")
    if not table.num_rows:
        raise FormatError(f"{path}: holds no record")
    return StoredRecords(path, table)


def seal_of(step: str, table: pa.Table) -> str:
    """Return the sha256 in hex of a step's name and each column: lengths (of texts, -1 for null) or values as
    little-endian int64, then the texts themselves."""
    digest = hashlib.sha256(step.encode() + b"\n")
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode() + b"\n")
        texts = pa.types.is_string(column.type)
        for chunk in column.chunks:
            numbers = pc.fill_null(pc.binary_length(chunk).cast(pa.int64()), -1) if texts else chunk.fill_null(_NOTHING)
            digest.update(numbers.to_numpy().astype("<i8", copy=False))
        for chunk in column.chunks if texts else ():
            digest.update(_text(chunk.drop_null()))
    return digest.hexdigest()


def _text(array: pa.Array) -> memoryview:
    """Return the bytes of all texts of an array without nulls."""
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return memoryview(b"")
    ends = memoryview(offsets).cast("i")
    return memoryview(data)[ends[array.offset] : ends[array.offset + len(array)]]


def _rows(record: ShardRecord) -> Iterator[tuple[Any, ...]]:
    said = (record.key, record.rows_in, record.rows_out, _json(record.dropped), _json(record.read))
    for number, file in enumerate(record.files or (None,)):
        of_file = (None, None, None, None) if file is None else (file.path, file.sha256, file.bytes, file.counted)
        yield (record.shard, *(said if number == 0 else (None,) * len(said)), *of_file)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _records(table: pa.Table) -> Iterator[ShardRecord]:
    known: dict[str, Any] = {}  # most shards have dropped, and read, the same
    for shard, rows in groupby(zip(*(column.to_pylist() for column in table.columns), strict=True), lambda row: row[0]):
        own = list(rows)
        _, key, rows_in, rows_out, dropped, read, *_ = own[0]
        files = tuple(FileRecord(*row[6:]) for row in own if row[6] is not None)
        for text in (dropped, read):
            if text not in known:
                known[text] = json.loads(text)
        yield ShardRecord(shard, key, files, rows_in, rows_out, {**known[dropped]}, {**known[read]})
