"""Find the samples of a tar that the table beside it lacks: they are in no row of it, and have a fate all the same."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.inputs.coerce import coerce
from pipeline.inputs.jsonl import FAULT
from pipeline.inputs.parquet import BrokenGroup, RowGroups
from pipeline.inputs.samples import Apart, sample_rows
from pipeline.inputs.tars import BrokenTar

NOT_IN_TABLE = "not_in_table"
BATCH_ROWS = 65_536


def rows_beside(tar: str, name: str, table: RowGroups, mapping: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row, by our columns, per sample of a tar whose key the table has in no row, or that has the key of a
    sample before it; its fault is `not_in_table`.

    A tar that is damaged has a last row that says so, unless rows of the table do. None where there is no tar, or a row
    group that cannot be read holds keys that nobody knows. Held are the keys of one table.
    """
    keys = _keys(table)
    if keys is None:
        return []
    try:
        return _rows(tar, name, keys, mapping)
    except (BrokenTar, OSError):  # each row of the table says so
        return []


def _rows(tar: str, name: str, keys: dict[str, bool], mapping: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows. Raises BrokenTar or OSError where nothing of the tar can be read."""
    for by_key in (False, True):
        seen: set[tuple[str, str]] = set()
        rows: list[dict[str, Any]] = []
        try:
            for row in sample_rows(tar, name, mapping, by_key=by_key, but=keys, seen=seen):
                rows.append(row if row[FAULT] == "broken_tar" else {**row, FAULT: NOT_IN_TABLE})
        except Apart:
            continue
        stems = {stem for stem, _ in seen}
        is_said = any(has_picture and key not in stems for key, has_picture in keys.items())
        return [row for row in rows if row[FAULT] == NOT_IN_TABLE or not is_said]
    raise AssertionError(f"{tar}: by key, members stand apart nowhere")


def _keys(table: RowGroups) -> dict[str, bool] | None:
    """Return key -> whether its row says that it has a picture, None where they cannot be read; a table without keys
    has none."""
    names = [name for name in ("key", "status") if name in table.names]
    if "key" not in names:
        return {}
    found: dict[str, bool] = {}
    try:
        for group in range(len(table.rows)):
            for batch in table.batches(group, names, BATCH_ROWS):
                said = [coerce(batch[name], pa.string()).to_pylist() for name in names]
                statuses = said[1] if len(said) > 1 else [None] * batch.num_rows
                found.update(
                    (key, status in (None, "success")) for key, status in zip(said[0], statuses, strict=True) if key
                )
    except BrokenGroup:
        return None
    return found
