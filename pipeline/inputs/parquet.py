"""Stream the row groups of one Parquet file, local or remote, and digest the bytes that were read."""

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from pipeline.inputs.errors import BrokenInput

BUFFER = 1 << 20
"""Bytes held of each column: a row group is streamed, however large it is."""


class BrokenGroup(BrokenInput):
    """A row group cannot be read to its end, or holds another number of rows than the footer promises."""

    def __init__(self, url: str, group: int, cause: str) -> None:
        super().__init__(url, f"row group {group}: {cause}")
        self.group = group


@contextmanager
def parsing(url: str) -> Iterator[None]:
    """Turn what pyarrow raises for damaged bytes, names that are not UTF-8 included, into BrokenInput."""
    try:
        yield
    except BrokenInput:
        raise
    except (pa.ArrowException, ValueError, NotImplementedError, OSError, EOFError) as error:
        raise BrokenInput(url, str(error) or type(error).__name__) from error


def open_input(url: str) -> Any:
    """Open one input file for reading, local or remote, as a binary file with random access. Raises OSError, for what
    is no plain file too: a pipe waits for its writer without an end."""
    filesystem, path = located(url)
    if not is_local(url):
        return filesystem.open(path, "rb", cache_type="none")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"not a plain file: {path}")
    return pa.OSFile(path)


def located(url: str) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it. What names a file of this machine is taken as it is: `::` in it
    chains nothing. Raises ValueError or ImportError for a protocol that fsspec does not know or cannot load."""
    if is_local(url):
        whole = os.path.abspath(url) if os.path.lexists(url) else url
        return LocalFileSystem(), str(LocalFileSystem._strip_protocol(whole))
    filesystem, path = fsspec.url_to_fs(url)
    return filesystem, str(path)


def is_local(url: str) -> bool:
    """Tell whether the URL names a file of this machine: `a::b` does, but where `a` is a protocol of fsspec's
    (`simplecache::a`) and no file has the whole name."""
    if url.startswith(("file://", "local://")):
        return True
    first, chained, _ = url.partition("::")
    return "://" not in url and (not chained or first not in known_implementations or os.path.lexists(url))


def read_footer(file: Any, url: str) -> tuple[pq.FileMetaData, list[str]]:
    """Return the footer of an open Parquet file and the names of its columns. Raises BrokenInput, which calls it
    `url`."""
    with parsing(url):
        footer = pq.ParquetFile(file).metadata
        return footer, footer.schema.to_arrow_schema().names


def rows_of_groups(footer: pq.FileMetaData) -> tuple[int, ...]:
    """Return the number of rows that a footer promises of each row group."""
    return tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))


class RowGroups:
    """One open Parquet file. Nothing of it is held in memory but the footer and BUFFER bytes of each column."""

    def __init__(self, url: str) -> None:
        """Open the file. Raises OSError where it cannot be opened and BrokenInput where it is no Parquet file."""
        self.url = url
        self._raw = open_input(url)
        with ExitStack() as undo, parsing(url):
            undo.callback(self._raw.close)
            self._file = pq.ParquetFile(self._raw, buffer_size=BUFFER, pre_buffer=False)
            self.names = tuple(self._file.schema_arrow.names)
            self.rows = rows_of_groups(self._file.metadata)
            undo.pop_all()  # it went well: the file stays open

    def __enter__(self) -> "RowGroups":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def batches(self, group: int, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the row group's rows in order, at most `batch_rows` at a time. Raises BrokenGroup, possibly after some
        batches."""
        if not columns:
            raise BrokenGroup(self.url, group, "none of its columns is wanted")
        rows = 0
        try:
            for batch in self._batches(group, list(columns), batch_rows):
                rows += batch.num_rows
                yield batch
        except BrokenInput as error:
            raise BrokenGroup(self.url, group, error.cause) from error
        if rows != self.rows[group]:
            raise BrokenGroup(self.url, group, f"{rows} rows where the footer promises {self.rows[group]}")

    def _batches(self, group: int, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the row group's batches as pyarrow reads them. Raises BrokenInput."""
        with parsing(self.url):
            for batch in self._file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
                batch.validate()
                yield batch

    def digest(self, groups: Sequence[int], columns: Sequence[str]) -> str:
        """Return the sha256 of the bytes that hold these columns of these row groups; "" for a remote file, which is
        read once."""
        if not is_local(self.url):
            return ""
        found = hashlib.sha256()
        try:
            with (
                open(located(self.url)[1], "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                for start, stop in self._ranges(groups, frozenset(columns)):
                    found.update(view[start:stop])
        except OSError as error:
            return f"unreadable: {error.strerror}"
        return found.hexdigest()

    def _ranges(self, groups: Sequence[int], columns: frozenset[str]) -> Iterator[tuple[int, int]]:
        for group in groups:
            footer = self._file.metadata.row_group(group)
            for number in range(footer.num_columns):
                column = footer.column(number)
                if column.path_in_schema.partition(".")[0] in columns:
                    start = min(
                        place for place in (column.dictionary_page_offset, column.data_page_offset) if place is not None
                    )
                    yield start, start + column.total_compressed_size
