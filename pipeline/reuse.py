"""Carry rows over from a shard that an earlier plan left, so that a new threshold computes nothing again."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import FormatError, read_table

MADE_BY = "tessera_made_by"
"""Parquet metadata: the digest of everything but the rows that the values depend on."""


def stamp(table: pa.Table, made_by: str, **facts: str) -> pa.Table:
    """Return the table with the digest that says how its values were made, and other facts, in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), MADE_BY: made_by, **facts})


def earlier_rows(path: Path, made_by: str) -> dict[bytes, dict[str, Any]]:
    """Return uid -> row of the file at `path` if its values were made the same way; rows without a value are left out."""
    try:
        table = read_table(path)
    except (OSError, FormatError, pa.ArrowInvalid):
        return {}
    if (table.schema.metadata or {}).get(MADE_BY.encode(), b"").decode() != made_by:
        return {}
    return {row["uid"]: row for row in table.to_pylist() if row.get("reason") is None}
