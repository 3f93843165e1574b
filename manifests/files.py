"""Write files so that a reader never sees half of one, and the same content is the same bytes."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.publishing import may_publish
from manifests.regular_files import read_plain, walk
from manifests.store import arrow_source, drop, is_remote, local_scratch, store_of

FORMAT = 1
"""Version of every file format this project writes; readers refuse what they do not know."""
TEMPORARY = ".tmp-"
ROW_GROUP_ROWS = 65_536
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


SEAL = "seal"
"""The field of a sealed JSON object that holds the digest of its other fields."""


Kind = TypeVar("Kind")


class FormatError(ValueError):
    """A file is not what its name says, or of a format version that this code does not know."""


class SealError(FormatError):
    """A sealed JSON object was changed after it was written."""


UNPARSED: tuple[type[Exception], ...] = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, EOFError, OSError),
    *(pa.ArrowException, struct.error, tarfile.TarError, zlib.error),
)
"""What Python and the readers of JSON, TOML, tar, npy and Parquet raise over bytes that are not what they should be."""


@contextlib.contextmanager
def parsing(path: object, says: str, raising: type[ValueError] = FormatError) -> Iterator[None]:
    """Turn what the bytes of a file make a parser raise into one `raising`: "PATH: SAYS (class: message)".

    This is the border that callers rely on: beyond it they catch OSError for a file that cannot be read, and
    FormatError for one that holds something else. A FormatError goes through as it is, and so does an OSError with a
    number, which is the disk's; Arrow's own have none. AssertionError and MemoryError are faults of the code and of
    the machine, Arrow's among them: no file is damaged for them.
    """
    try:
        yield
    except UNPARSED as error:
        if isinstance(error, (FormatError, MemoryError, raising)) or getattr(error, "errno", None) is not None:
            raise
        text = (str(error).splitlines() or [""])[0][:200]
        raise raising(f"{path}: {says} ({type(error).__name__}: {text})") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, unique per attempt, and rename it to `path` when the block ends well;
    in an object store a local path, whose file is uploaded then.

    Two attempts may write one file at the same time (a cluster restarts shards): the last rename wins whole. Raises
    RunOver where the run that this is for does not hold its folder any more (see publishing.py).
    """
    if is_remote(path):
        with _uploading(path) as local:
            yield local
        return
    if not os.path.isdir(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{attempts_of(os.getpid())}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        may_publish()
        store_of(path).commit(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _uploading(path: Path) -> Iterator[Path]:
    """Yield a local path, and upload what was written there as one object when the block ends well."""
    folder = local_scratch(path)
    try:
        yield folder / path.name
        may_publish()
        store_of(path).commit(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def attempts_of(pid: int) -> str:
    """Return how the names begin that a process of this machine writes under until a file is whole."""
    return f"{TEMPORARY}{socket.gethostname()}-{pid}-"


def finished(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names match, in order, without those that dead attempts left half-written."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith(TEMPORARY))


def sweep_after(root: Path, pids: Iterable[int]) -> None:
    """Remove the files that processes of this machine, which have died, left half-written below `root`."""
    begin = tuple(attempts_of(pid) for pid in pids)
    for here, _, files in walk(root) if begin and not is_remote(root) else ():
        for name in files:
            if name.startswith(begin):
                (here / name).unlink(missing_ok=True)


def sweep(root: Path) -> int:
    """Remove what dead attempts left below `root`, files and folders; return how many files that were."""
    leftovers: list[Path] = []
    for here, names, files in walk(root):
        for folder in [here / name for name in names if name.startswith(TEMPORARY)]:
            drop(folder)
        names[:] = [name for name in names if not name.startswith(TEMPORARY)]
        leftovers += [here / name for name in files if name.startswith(TEMPORARY)]
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


def json_text(value: Mapping[str, Any]) -> bytes:
    """Return the bytes that `write_json` writes for an object that has its format version."""
    return (_indented(value, "\n") + "\n").encode()


def _indented(value: Any, line: str) -> str:
    """Return what `json.dumps(value, indent=1)` gives; `line`: the line end and indent that the value stands at.

    Python's encoder in C knows no indent, and the other one takes 17 s for the 306,004 files of a manifest: what holds
    no further object or list goes to the first, with its line ends as separators.
    """
    inner = line + " "
    if not value or not isinstance(value, (dict, list, tuple)):
        return _encoder("").encode(value)
    if not any(isinstance(one, (dict, list, tuple)) for one in (value.values() if isinstance(value, dict) else value)):
        text = _encoder(inner).encode(value)
        return f"{text[0]}{inner}{text[1:-1]}{line}{text[-1]}"
    if isinstance(value, dict):
        texts = (f"{_key(name)}: {_indented(one, inner)}" for name, one in value.items())
        return f"{{{inner}{(',' + inner).join(texts)}{line}}}"
    return f"[{inner}{(',' + inner).join(_indented(one, inner) for one in value)}{line}]"


@cache
def _encoder(line: str) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=("," + line, ": "))


def _key(name: Any) -> str:
    """Return the JSON text of an object's key, which Python takes from numbers too."""
    return _encoder("").encode({name: 0})[1:-4]


def write_json(path: Path, value: Mapping[str, Any], sealed: bool = False) -> None:
    """Write an indented JSON object, with its format version, by temporary name and rename.

    `sealed` adds a digest of the object to it, for files that no other file names the sha256 of.
    """
    whole = {"format": FORMAT, **value}
    write_bytes(path, json_text({**whole, SEAL: digest_of(whole)} if sealed else whole))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` wrote, without its seal. Raises FormatError for another file or version,
    SealError."""
    return unsealed(path, read_plain(path))[0]


def unsealed(path: Path, data: bytes) -> tuple[dict[str, Any], bool]:
    """Return (object without its seal, whether it had one) of a JSON file's bytes. Raises FormatError or SealError."""
    with parsing(path, "not JSON"):
        value = json.loads(data, parse_constant=_refuse)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise FormatError(
            f"{path}: format {value.get('format') if isinstance(value, dict) else '?'}, this version reads {FORMAT}"
        )
    seal = value.pop(SEAL, None)
    if seal is None:
        return value, False
    with parsing(path, "its content has no digest"):
        digest = digest_of(value)
    if seal != digest:
        raise SealError(
            f"{path}: its seal says {seal}, its content {digest}: the file was changed after it was written"
        )
    return value, True


def read_field(path: Path, name: str, kind: type[Kind]) -> Kind:
    """Return one field of a JSON object that `write_json` wrote, which is a `kind` (dict, list …).

    Raises FormatError where the object lacks it or holds something else there, SealError, OSError.
    """
    value = read_json(path).get(name)
    if not isinstance(value, kind):
        raise FormatError(f"{path}: its {name} is a {type(value).__name__}, wanted a {kind.__name__}")
    return value


def parse_json(path: Path | str, data: bytes) -> Any:
    """Return the value of anybody's JSON text that lies at `path`, NaN allowed. Raises FormatError for anything
    else."""
    with parsing(path, "not JSON"):
        return json.loads(data)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def write_table(path: Path, table: pa.Table, row_group_rows: int = ROW_GROUP_ROWS) -> None:
    """Write a Parquet file with fixed row groups and the format version in its metadata, by temporary name and
    rename."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"tessera_format": str(FORMAT).encode()})
    with writing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_rows)


class TableWriter:
    """Writes tables that come in pieces of any size: row groups hold ROW_GROUP_ROWS rows, the last one fewer.

    The bytes depend on the rows alone, not on how they were cut; memory holds one row group.
    """

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._waiting, self._rows = writer, list[pa.Table](), 0

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        while table.num_rows:
            part = table.slice(0, ROW_GROUP_ROWS - self._rows)
            self._waiting.append(part)
            self._rows += part.num_rows
            table = table.slice(part.num_rows)
            if self._rows == ROW_GROUP_ROWS:
                self.flush()

    def flush(self) -> None:
        """Write what waits as one row group, in one piece: pages end where pieces do."""
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._waiting, self._rows = [], 0


@contextlib.contextmanager
def writing_table(path: Path, schema: pa.Schema, **encoding: Any) -> Iterator[TableWriter]:
    """Yield a TableWriter for a file as `write_table` makes it; `encoding` are pyarrow's writer options (use_dictionary
    …)."""
    schema = schema.with_metadata({**(schema.metadata or {}), b"tessera_format": str(FORMAT).encode()})
    with writing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd", **encoding) as writer:
        rows = TableWriter(writer)
        yield rows
        rows.flush()


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file that `write_table` wrote.

    Raises FormatError for one that is damaged, lacks one of `columns`, or has another format version; OSError.
    """
    with open_table(path) as file:
        _check_format(path, file)
        return _columns(path, file, columns)


def read_present(path: Path, columns: Iterable[str]) -> pa.Table:
    """Read those of `columns` that a table of `write_table` has: earlier versions, and other recipes, write fewer.
    Raises as `read_table` does."""
    with open_table(path) as file:
        _check_format(path, file)
        names = set(file.schema_arrow.names)
        return _columns(path, file, [name for name in columns if name in names])


def _check_format(path: Path, file: pq.ParquetFile) -> None:
    version = (file.schema_arrow.metadata or {}).get(b"tessera_format", b"?").decode("ascii", "replace")
    if version != str(FORMAT):
        raise FormatError(f"{path}: format {version}, this version reads {FORMAT}")


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read any Parquet file. Raises FormatError for one that is damaged or lacks one of `columns`, OSError."""
    with open_table(path) as file:
        return _columns(path, file, columns)


@contextlib.contextmanager
def open_table(path: Path, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open any Parquet file; what its bytes make Arrow raise, also within the block, becomes a FormatError. `footer`:
    the file's own, where it was read before."""
    with parsing(path, "not a Parquet table that can be read"), contextlib.ExitStack() as stack:
        source = stack.enter_context(arrow_source(path)) if is_remote(path) else path
        with pq.ParquetFile(source, metadata=footer) as file:
            yield file


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of any Parquet file, its metadata never None. Raises FormatError for one that is damaged,
    OSError."""
    with open_table(path) as file:
        schema = file.schema_arrow
    return schema if schema.metadata is not None else schema.with_metadata({})


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of any Parquet file, half as dear as its schema. Raises FormatError for one that is damaged,
    OSError."""
    with parsing(path, "not a Parquet table that can be read"), arrow_source(path) as file:
        return dict(pq.ParquetFile(file).metadata.metadata or {})


def rows_of(path: Path) -> int:
    """Return the number of rows of any Parquet file. Raises FormatError for one that is damaged, OSError."""
    with open_table(path) as file:
        return int(file.metadata.num_rows)


def has_columns(path: Path, *names: str) -> bool:
    """Tell whether a Parquet file has these columns: not one that is missing or damaged."""
    try:
        return {*names} <= {*read_schema(path).names}
    except (OSError, FormatError):
        return False


def _columns(path: Path, file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    if columns and (missing := sorted({*columns} - {*file.schema_arrow.names}, key=columns.index)):
        raise FormatError(f"{path}: has no column {missing[0]}")
    threads = file.metadata.num_rows > ROW_GROUP_ROWS  # fewer rows are read sooner than threads are given their columns
    return file.read(columns=columns, use_threads=threads)
