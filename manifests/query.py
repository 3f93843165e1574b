"""Open DuckDB on the tables of a run: no extension from the network, spill inside the run folder."""

from collections.abc import Iterable
from pathlib import Path

import duckdb


def connect(root: Path) -> duckdb.DuckDBPyConnection:
    """Open DuckDB without extensions from the network and with its spill inside the run folder."""
    connection = duckdb.connect()
    for setting in (
        "autoinstall_known_extensions=false",
        "autoload_known_extensions=false",
        "preserve_insertion_order=true",
    ):
        connection.execute(f"SET {setting}")
    connection.execute("SET temp_directory = ?", [str(root / ".tmp-duckdb")])
    return connection


def files_sql(paths: Iterable[Path]) -> str:
    """Return a DuckDB `read_parquet` of these files, in this order, with file_row_number and file_index."""
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], file_row_number=true, filename=true, hive_partitioning=false)"
