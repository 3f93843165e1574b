"""Blank removed rows in the tables that were made of an input that is none: they keep their places and say
`removed`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.tombstones import named_rows
from manifests.files import read_json, write_json, writing
from manifests.journal import FileRecord, Journal, records_of
from manifests.store import open_file
from manifests.tombstones import Tombstones
from manifests.uid import Uids
from pipeline.inputs.input_list import LEDGER
from pipeline.inputs.jsonl import FAULT_COLUMN
from pipeline.inputs.parquet import RowGroups, parsing


def blank_rows(path: Path, source: str, mapping: Mapping[str, str], tombstones: Tombstones) -> int:
    """Write a table anew whose removed rows hold nothing but the fault `removed`; return how many were blanked now.

    `mapping`: our column -> the table's. Row groups stay as they are; a table without removed rows is not touched.
    Raises OSError, and BrokenInput where the table is damaged.
    """
    with _opened_table(path) as file:
        if not sum(_count(mask) for _, mask in _groups(file, source, mapping, tombstones)):
            return 0
        done = 0
        with writing(path) as temporary, pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as writer:
            for table, mask in _groups(file, source, mapping, tombstones):
                done += _count(mask)
                writer.write_table(_blanked(table, mask), row_group_size=max(1, table.num_rows))
    return done


@contextmanager
def _opened_table(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a table of the run, and close it at the end of the block. Raises OSError or BrokenInput."""
    with open_file(path) as raw:
        with parsing(str(path)):
            file = pq.ParquetFile(raw)
        yield file


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _groups(
    file: pq.ParquetFile, source: str, mapping: Mapping[str, str], tombstones: Tombstones
) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Yield each row group with which of its rows are removed and not blank yet."""
    first, uids = 0, Uids()
    for number in range(file.num_row_groups):
        with parsing(source):
            table = file.read_row_group(number)
        count = table.num_rows
        url, text = (
            table[mapping[name]].combine_chunks() if mapping.get(name) in table.column_names else None
            for name in ("url", "text")
        )
        place = {
            "source": pa.repeat(source, count),
            "source_row": pa.array(np.arange(first, first + count, dtype=np.int64)),
        }
        gone = named_rows(tombstones, {"url": url, "uid": uids.of(url, text)[0], **place})
        yield table, pc.and_(gone, pc.fill_null(pc.not_equal(table[FAULT_COLUMN].combine_chunks(), "removed"), True))
        first += count


def _blanked(table: pa.Table, mask: pa.Array) -> pa.Table:
    columns = [
        pc.if_else(mask, pa.scalar("removed" if field.name == FAULT_COLUMN else None, field.type), table[field.name])
        for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def blank_input(root: Path, mapping: Mapping[str, str], tombstones: Tombstones) -> int:
    """Blank removed rows in every table that the run made of its input; the input list and what units have read
    follow."""
    path = root / "manifests" / LEDGER
    entry = read_json(path) if path.exists() else {"files": []}
    count = 0
    for file in entry["files"]:
        if not file.get("made"):
            continue
        table = root / file["made"][0]
        blanked = blank_rows(table, file["name"], mapping, tombstones) if table.exists() else 0
        if blanked:
            record = FileRecord.of(root, table)
            file["made"] = [record.path, record.sha256, record.bytes]
            _read_again(root, file["name"], table)
            count += blanked
    if count:
        write_json(path, {name: value for name, value in entry.items() if name != "format"}, sealed=True)
    return count


def _read_again(root: Path, source: str, table: Path) -> None:
    """Note what finished units of select would read of the table now."""
    with RowGroups(str(table)) as file:
        for record in records_of(root, "select"):
            if record.read.get("name") == source:
                sha256 = file.digest(range(*record.read["groups"]), record.read["columns"])
                Journal(root, "select").record(replace(record, read={**record.read, "sha256": sha256}))
    Journal(root, "select").compact()
