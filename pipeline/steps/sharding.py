"""Cut streams of rows into shards, and read a range of one."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.files import open_table


def without_gaps(table: pa.Table) -> pa.Table:
    """Drop the rows that only keep the place of removed ones."""
    return table.filter(pc.invert(table["gone"])) if pc.any(table["gone"]).as_py() else table


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


def cut_shards(batches: pa.RecordBatchReader, rows: int, most: int) -> Iterator[pa.Table]:
    """Yield tables of at most `rows` rows whose column `bytes` adds up to at most `most`; a row larger than that stands
    alone."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        start = 0
        for number, weight in enumerate(batch["bytes"].to_pylist()):
            if count and (count == rows or size + weight > most):
                yield pa.Table.from_batches([*waiting, batch.slice(start, number - start)])
                waiting, start, count, size = [], number, 0, 0
            count, size = count + 1, size + weight
        waiting.append(batch.slice(start))
    if count:
        yield pa.Table.from_batches(waiting)
