"""Put what a step would have left into a run folder: a table and its record in the journal."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord


def uid(number: int) -> bytes:
    """Return a uid that is a small number: 16 equal bytes, so that uids are in order of their numbers."""
    return bytes([number]) * 16


def put_table(root: Path, step: str, path: str, rows: list[dict[str, Any]], schema: pa.Schema) -> ShardRecord:
    """Write rows to `path` below the run folder as the step's only file of the shard of that name; return its
    record."""
    write_table(root / path, pa.Table.from_pylist(rows, schema=schema))
    record = ShardRecord(Path(path).stem, "key", (FileRecord.of(root, root / path),), len(rows), len(rows))
    Journal(root, step).record(record)
    return record
