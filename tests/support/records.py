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


def finished_shard(root: Path, name: str = "00000", **other: Any) -> ShardRecord:
    """Write NAME as the bytes of `out/NAME.bin` and return its record: key k, 3 rows in, 2 out, 1 dropped for size,
    but for `other`."""
    path = root / "out" / f"{name}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
    values: dict[str, Any] = {"rows_in": 3, "rows_out": 2, "dropped": {"size": 1}} | other
    return ShardRecord(name, "k", (FileRecord.of(root, path),), **values)
