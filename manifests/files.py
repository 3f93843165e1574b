"""Write files so that a reader never sees half of one, and the same content is the same bytes."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = 1
"""Version of every file format this project writes; readers refuse what they do not know."""
TEMPORARY = ".tmp-"
ROW_GROUP_ROWS = 65_536
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FormatError(ValueError):
    """A file is not what its name says, or of a format version that this code does not know."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, unique per attempt, and rename it to `path` when the block ends well.

    Two attempts may write one file at the same time (a cluster restarts shards): the last rename wins whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(root: Path) -> int:
    """Remove what dead attempts left below `root`; return how many files that were."""
    leftovers = [path for path in root.rglob(f"{TEMPORARY}*") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def out_of_room(error: BaseException) -> bool:
    """Tell whether an error means that the disk, the quota or the file-size limit is used up."""
    return (isinstance(error, OSError) and error.errno in NO_ROOM) or any(
        text in str(error) for text in ("No space left on device", "File too large")
    )


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Return the sha256 in hex of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file by temporary name and rename."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an indented JSON object, with its format version, by temporary name and rename."""
    text = json.dumps({"format": FORMAT, **value}, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` wrote. Raises FormatError for another file or version."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise FormatError(f"{path}: format {value.get('format') if isinstance(value, dict) else '?'}, this version reads {FORMAT}")
    return value


def write_table(path: Path, table: pa.Table, row_group_rows: int = ROW_GROUP_ROWS) -> None:
    """Write a Parquet file with fixed row groups and the format version in its metadata, by temporary name and rename."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), "tessera_format": str(FORMAT)})
    with writing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_rows)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file that `write_table` wrote. Raises FormatError for another format version."""
    with pq.ParquetFile(path) as file:
        version = (file.schema_arrow.metadata or {}).get(b"tessera_format", b"?").decode()
        if version != str(FORMAT):
            raise FormatError(f"{path}: format {version}, this version reads {FORMAT}")
        return file.read(columns=columns)
