"""Cut streams of rows into shards, and read a range of one."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import open_table

Item = TypeVar("Item")


def without_gaps(table: pa.Table) -> pa.Table:
    """Drop the rows that only keep the place of removed ones."""
    return table.filter(pc.invert(table["gone"])) if pc.any(table["gone"]).as_py() else table


def runs(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Yield items in runs, in order, whose sizes add up to at most `most`; one that is larger stands alone."""
    some: list[Item] = []
    held = 0
    for item in items:
        if some and held + size(item) > most:
            yield some
            some, held = [], 0
        some.append(item)
        held += size(item)
    if some:
        yield some


def read_range(path: Path, column: str, first: int, last: int, columns: list[str] | None = None) -> pa.Table:
    """Return these columns of the row groups of a Parquet file whose statistics say that `column` may lie in
    first..last."""
    with open_table(path) as file:
        place = file.schema_arrow.get_field_index(column)
        groups = []
        for number in range(file.num_row_groups):
            found = file.metadata.row_group(number).column(place).statistics
            if found is None or not found.has_min_max or (found.min <= last and found.max >= first):
                groups.append(number)
        return file.read_row_groups(groups, columns)


def in_batches(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of tables in batches of exactly `rows`, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        while table.num_rows:
            waiting.append(table.slice(0, rows - count))
            count, table = count + waiting[-1].num_rows, table.slice(waiting[-1].num_rows)
            if count == rows:
                yield from pa.concat_tables(waiting).combine_chunks().to_batches()
                waiting, count = [], 0
    if waiting:
        yield from pa.concat_tables(waiting).combine_chunks().to_batches()


def cut_shards(batches: Iterable[pa.RecordBatch], rows: int, most: int) -> Iterator[pa.Table]:
    """Yield tables of at most `rows` rows whose column `bytes` adds up to at most `most`; a row larger than that stands
    alone."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        start, sums = 0, np.cumsum(batch["bytes"].to_numpy())
        while start < batch.num_rows:
            before = int(sums[start - 1]) if start else 0
            end = min(start + rows - count, int(np.searchsorted(sums, before + most - size, "right")))
            end = max(end, start + (not count))  # one that is too large stands alone
            if end >= batch.num_rows:
                break
            yield pa.Table.from_batches([*waiting, batch.slice(start, end - start)])
            waiting, start, count, size = [], end, 0, 0
        waiting.append(batch.slice(start))
        if start < batch.num_rows:
            count, size = count + batch.num_rows - start, size + int(sums[-1]) - (int(sums[start - 1]) if start else 0)
    if count:
        yield pa.Table.from_batches(waiting)
