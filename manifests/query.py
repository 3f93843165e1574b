"""Open DuckDB on the tables of a run: no extension from the network, spill inside the run folder."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import duckdb

from manifests.duckdb_files import reading_filesystem
from manifests.files import FormatError, out_of_room, read_field
from manifests.remote_path import RemotePath
from manifests.store import scratch_of

Item = TypeVar("Item")
OF_BYTES = (
    *(duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException),
    *(duckdb.BinderException, duckdb.ConversionException, duckdb.OutOfRangeException),
)
"""What DuckDB raises over a table that is damaged, or lacks a column, or has another type there; or plain Error."""


SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "preserve_insertion_order": True,
    "enable_external_file_cache": False,
    "disabled_optimizers": "join_filter_pushdown",
}
"""Given while it is opened: a SET for each would take longer than to open it does. The cache of files would hold 70 kB
and more of each file read, for as long as the connection is open. Filters that a join finds as it runs are not handed
to its other side: where that is a registered Arrow table, what stands for many values (BLOOM_FILTER) is an error there,
now and then (duckdb-python, issue 463)."""
FILES = 256
"""Files that a query opens at a time where they can be many: DuckDB holds about 20 kB of each, whatever its limit."""
MEMORY_LIMIT = "2GB"
"""What a query may hold in memory where the run's recipe does not say: the answers are the same with less."""


def limits(root: Path) -> tuple[str, int]:
    """Return (memory limit, threads, 0 for one a core) of a query, as the recipe that the run folder holds says:
    `output.memory_limit`, `output.threads`."""
    try:
        values = read_field(root / "manifests" / "recipe.json", "recipe", dict).get("output", {})
        return str(values.get("memory_limit", MEMORY_LIMIT)), int(values.get("threads", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return MEMORY_LIMIT, 0


@contextlib.contextmanager
def connect(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB without extensions from the network and with its spill inside the run folder; the block's end closes
    it.

    What a query in the block raises over a stored table becomes a FormatError that names the run, and in DuckDB's own
    words the table. A full disk, a lack of memory and what only a defect of ours can cause go through.
    """
    try:
        memory, threads = limits(root)
        config = {**SETTINGS, "temp_directory": str(scratch_of(root) / ".tmp-duckdb"), "memory_limit": memory}
        with duckdb.connect(config={**config, **({"threads": threads} if threads else {})}) as connection:
            if isinstance(root, RemotePath):
                connection.register_filesystem(reading_filesystem(root.protocol))
            yield connection
    except duckdb.OutOfMemoryException as error:
        if out_of_room(error):
            raise
        raise duckdb.OutOfMemoryException(
            f"{root}: a query needs more memory than output.memory_limit = {limits(root)[0]} allows ({error})"
        ) from error
    except duckdb.Error as error:
        if out_of_room(error) or not (isinstance(error, OF_BYTES) or type(error) is duckdb.Error):
            raise
        raise FormatError(f"{root}: a stored table cannot be read ({error})") from error


def in_memory(memory_limit: str = MEMORY_LIMIT, threads: int = 1) -> duckdb.DuckDBPyConnection:
    """Open DuckDB for tables in memory: no files, no spill. To Arrow 128-bit numbers come as their bytes, truth values
    as int8 of an extension type."""
    config = {**SETTINGS, "arrow_lossless_conversion": True, "temp_directory": ""}
    return duckdb.connect(config={**config, "memory_limit": memory_limit, "threads": threads})


def files_sql(paths: Iterable[Path]) -> str:
    """Return a DuckDB `read_parquet` of these files, in this order, with file_row_number and file_index."""
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], file_row_number=true, filename=true, hive_partitioning=false)"


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last one shorter: files that a query opens at a time."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
