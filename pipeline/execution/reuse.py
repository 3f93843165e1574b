"""Carry rows over from shards that another plan left, so that new thresholds fetch nothing and run no model again.

A shard whose plan changed is set aside (hard links below `.earlier/STEP/`) before it is made anew; workers look there
for rows made the same way. What is carried over is what would be made again, so that the bytes do not depend on it.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import digest_of, read_schema, read_table
from manifests.journal import ShardRecord

MADE_BY = "tessera_made_by"
"""Parquet metadata: the digest of everything but the rows that the values depend on."""


def stamp(table: pa.Table, made_by: str, **facts: str) -> pa.Table:
    """Return the table with the digest that says how its values were made, and other facts, in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), MADE_BY: made_by, **facts})


def _folder(root: Path, step: str) -> Path:
    return root / ".earlier" / step


def set_aside(root: Path, step: str, records: Iterable[ShardRecord]) -> None:
    """Keep the files of these records under `.earlier/STEP/RECORD.EXTENSION` while their shards are made anew."""
    for record in records:
        name = digest_of([[file.path, file.sha256] for file in record.files])[:24]
        for file in record.files:
            kept = _folder(root, step) / f"{name}-{Path(file.path).parts[0]}{Path(file.path).suffix}"
            if file.is_whole(root) and not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.link(root / file.path, kept)


def let_go(root: Path, step: str) -> None:
    """Drop what was set aside for a step."""
    shutil.rmtree(_folder(root, step), ignore_errors=True)
    with contextlib.suppress(OSError):  # other steps may still have something there
        _folder(root, step).parent.rmdir()


def earlier_tables(root: Path, step: str, made_by: str) -> Iterator[tuple[Path, pa.Table]]:
    """Yield (path, table) of what was set aside and made the same way."""
    for path in sorted(_folder(root, step).glob("*.parquet")):
        if read_schema(path).metadata.get(MADE_BY.encode(), b"") == made_by.encode():
            yield path, read_table(path)


def earlier_rows(root: Path, step: str, made_by: str, uids: Collection[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return uid -> row of what was set aside and made the same way. Rows whose worker died stay out."""
    values, rows = pa.array(list(uids), pa.binary(16)), {}
    for path, table in earlier_tables(root, step, made_by) if len(values) else ():
        for row in table.filter(pc.is_in(table["uid"], values)).to_pylist():
            if row["reason"] != "worker_died":
                rows[row["uid"]] = {**row, "file": path}
    return rows
