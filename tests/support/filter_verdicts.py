"""What a recipe's rule says of rows that are written out column by column."""

from typing import Any

import pyarrow as pa

from filters.base import build_filter

TYPES = {"text": pa.string(), "language": pa.string(), "width": pa.int32(), "height": pa.int32()}
"""Columns that are no float32."""


def verdicts(rule: dict[str, Any], **columns: list[Any]) -> list[bool | None]:
    """Build a rule and return its verdict on each row: true, false or None; every column that it reads must be
    given."""
    arrays = {name: pa.array(values, TYPES.get(name, pa.float32())) for name, values in columns.items()}
    built = build_filter(rule)
    assert set(built.inputs) <= set(columns)
    return built.keep(pa.RecordBatch.from_pydict(arrays)).to_pylist()
