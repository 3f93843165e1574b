"""Stream the row groups of one Parquet file, local or remote, and digest the bytes that were read."""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

UNREADABLE = (pa.ArrowException, ValueError, NotImplementedError, OSError, EOFError)
"""What pyarrow raises for a damaged Parquet file, names that are not UTF-8 included."""
BUFFER = 1 << 20
"""Bytes held of each column: a row group is streamed, however large it is."""


class BrokenGroup(ValueError):
    """A row group cannot be read to its end, or holds another number of rows than the footer promises."""

    def __init__(self, group: int, fault: str) -> None:
        super().__init__(f"row group {group}: {fault}")
        self.group = group


def open_input(url: str) -> Any:
    """Open one input file for reading, local or remote, as a binary file with random access."""
    filesystem, path = fsspec.url_to_fs(url)
    return pa.OSFile(path) if is_local(url) else filesystem.open(path, "rb", cache_type="none")


def is_local(url: str) -> bool:
    """Tell whether the URL names a file of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


class RowGroups:
    """One open Parquet file. Nothing of it is held in memory but the footer and BUFFER bytes of each column."""

    def __init__(self, url: str) -> None:
        """Open the file. Raises one of UNREADABLE."""
        self.url = url
        self._raw = open_input(url)
        with ExitStack() as undo:
            undo.callback(self._raw.close)
            self._file = pq.ParquetFile(self._raw, buffer_size=BUFFER, pre_buffer=False)
            undo.pop_all()  # it went well: the file stays open
        self.names = tuple(self._file.schema_arrow.names)
        self.rows = tuple(self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups))

    def __enter__(self) -> "RowGroups":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def batches(self, group: int, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the row group's rows in order, at most `batch_rows` at a time. Raises BrokenGroup, possibly after some
        batches."""
        rows = 0
        try:
            if not columns:
                raise pa.ArrowInvalid("none of its columns is wanted")
            for batch in self._file.iter_batches(
                batch_rows, row_groups=[group], columns=list(columns), use_threads=False
            ):
                batch.validate()
                rows += batch.num_rows
                yield batch
        except UNREADABLE as error:
            raise BrokenGroup(group, str(error)) from error
        if rows != self.rows[group]:
            raise BrokenGroup(group, f"{rows} rows where the footer promises {self.rows[group]}")

    def digest(self, groups: Sequence[int], columns: Sequence[str]) -> str:
        """Return the sha256 of the bytes that hold these columns of these row groups; "" for a remote file, which is
        read once."""
        if not is_local(self.url):
            return ""
        found = hashlib.sha256()
        try:
            with (
                open(fsspec.url_to_fs(self.url)[1], "rb") as file,
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
