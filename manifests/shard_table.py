"""Keep the files of a stage's shards in a Parquet table beside its manifest, and digest them as the manifest does."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import ROW_GROUP_ROWS
from manifests.shard_record import ShardRecord

SHARDS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("step", "shard", "path", "sha256")),
        pa.field("bytes", pa.int64()),
        pa.field("counted", pa.string(), metadata={"says": "stands for sha256 and bytes in digests; mostly empty"}),
        *(pa.field(name, pa.int64(), metadata={"says": "of the whole shard"}) for name in ("rows_in", "rows_out")),
    ]
)
"""A row a file, in order of steps and shards: what a manifest says of each."""


def shard_table(records: Mapping[str, Sequence[ShardRecord]]) -> pa.Table:
    """Return the rows of the files of each step's shards, in order."""
    rows = (
        (step, record.shard, file.path, file.sha256, file.bytes, file.counted, record.rows_in, record.rows_out)
        for step, of_step in records.items()
        for record in of_step
        for file in record.files
    )
    columns = list(zip(*rows, strict=True)) or [()] * len(SHARDS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SHARDS, strict=True)]
    return pa.table(arrays, schema=SHARDS)


def files_of(table: pa.Table, step: str, shard: str | None = None) -> pa.Table:
    """Return the rows of a step's files, or of one shard's."""
    rows = table.filter(pc.equal(table["step"], step))
    return rows if shard is None else rows.filter(pc.equal(rows["shard"], shard))


def from_entries(entries: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the table of a list of objects, as manifests of before hold it. Raises ValueError for one that lacks a
    field or holds another type there."""
    table = pa.Table.from_pylist([{"counted": "", **entry} for entry in entries], schema=SHARDS)
    if lacking := [name for name in SHARDS.names if table[name].null_count]:
        raise ValueError(f"a file without {lacking[0]}")
    return table


def entries_json(table: pa.Table) -> Iterator[bytes]:
    """Yield, in pieces, the canonical JSON of the list of a table's rows as they count in a digest.

    A row is {"bytes":…,"path":…,"rows_in":…,"rows_out":…,"sha256":…,"shard":…,"step":…}; one with `counted` lacks
    bytes, and has it as its sha256.
    """
    yield b"["
    for number, batch in enumerate(table.combine_chunks().to_batches(max_chunksize=ROW_GROUP_ROWS)):
        rows = dict(zip(batch.schema.names, batch.columns, strict=True))
        counted = pc.greater(pc.binary_length(rows["counted"]), 0)
        texts = {name: _quoted(rows[name]) for name in ("path", "shard", "step")}
        sha256 = _quoted(pc.if_else(counted, rows["counted"], rows["sha256"]))
        size = pc.if_else(counted, "", _join('"bytes":', rows["bytes"].cast(pa.string()), ","))
        numbers = {name: rows[name].cast(pa.string()) for name in ("rows_in", "rows_out")}
        entries = _join(
            *("{", size, '"path":', texts["path"], ',"rows_in":', numbers["rows_in"], ',"rows_out":'),
            *(numbers["rows_out"], ',"sha256":', sha256, ',"shard":', texts["shard"], ',"step":', texts["step"], "}"),
        )
        yield b"," if number else b""
        yield ",".join(entries.to_pylist()).encode()
    yield b"]"


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _quoted(texts: pa.Array) -> pa.Array:
    """Return the JSON of each text."""
    if pc.any(pc.match_substring_regex(texts, r'["\\\x00-\x1f]')).as_py():
        return pa.array([json.dumps(text, ensure_ascii=False) for text in texts.to_pylist()], pa.string())
    return _join('"', texts, '"')
