"""Make groups of rows as steps set them aside, and say what lies aside."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from manifests.aside import ASIDE, groups
from manifests.files import read_table, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from pipeline.execution.reuse import stamp

Rows = Sequence[tuple[bytes, str]]
"""(uid, what the row was made from)."""


def scores(root: Path, name: str, rows: Rows, made_by: str = "one", dead: Sequence[bytes] = ()) -> ShardRecord:
    """Write `scores/NAME.parquet` and return its record: `value` says the shard, `dead` are rows whose worker died."""
    columns = {
        "uid": pa.array([uid for uid, _ in rows], pa.binary(16)),
        "sha256": pa.array([made_from.encode() for _, made_from in rows], pa.binary()),
        "reason": pa.array(["worker_died" if uid in dead else None for uid, _ in rows], pa.string()),
        "value": [name] * len(rows),
    }
    path = root / "scores" / f"{name}.parquet"
    write_table(path, stamp(pa.table(columns), made_by))
    return ShardRecord(name, "key", (FileRecord.of(root, path),), len(rows), len(rows))


def journalled(root: Path, *records: ShardRecord) -> None:
    """Let these be the shards of the score step, and no others."""
    journal = Journal(root, "score")
    for path in journal.folder.glob("*.json"):
        path.unlink()
    for record in records:
        journal.record(record)


def aside(root: Path, step: str = "score", made_by: str = "one") -> list[tuple[bytes, str, str]]:
    """Return (uid, what it was made from, its shard) of every score that lies aside, in order."""
    tables = [read_table(g.folder / g.table) for g in groups(root, ASIDE, step) if g.made_by == made_by]
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted((row["uid"], row["sha256"].decode(), row["value"]) for row in rows)
