"""Bring the input's columns to our types, whatever their drift: what cannot be said in a type is null."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def coerce(column: pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """Return a column in our type, whatever its drift: what cannot be said in it, infinities too, is null.

    Floats become whole pixels only where finite and in range; text that is not UTF-8 keeps its place with U+FFFD.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(type_):
        return _text(array)
    if type_ == pa.int64():
        return _exact(array)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        array = _numbers(array)
    wide = array.cast(pa.float64(), safe=False)
    if pa.types.is_integer(type_):
        fits = pc.and_(pc.is_finite(wide), pc.less(pc.abs(wide), 2.0**31))
        return pc.if_else(fits, wide, pa.scalar(None, pa.float64())).cast(type_, safe=False)
    found = wide.cast(type_, safe=False)
    return pc.if_else(pc.is_finite(found), found, pa.scalar(None, type_))


def _exact(array: pa.Array) -> pa.Array:
    """Return 64-bit integers, or those that texts spell, bit for bit (unsigned ones as signed); floats cannot hold them
    all: null."""
    if pa.types.is_integer(array.type):
        return array.cast(pa.int64(), safe=False)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return pa.nulls(len(array), pa.int64())
    whole = pc.if_else(
        pc.match_substring_regex(array, r"^-?[0-9]{1,18}$|^-?[0-8][0-9]{18}$"), array, pa.scalar(None, array.type)
    )
    return whole.cast(pa.int64())


def _numbers(array: pa.Array) -> pa.Array:
    """Return the numbers that texts spell; other kinds of values are no numbers."""
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_decimal(array.type)):
        return pa.nulls(len(array), pa.float64())
    return pa.array([_number(value) for value in array.to_pylist()], pa.float64())


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(array: pa.Array) -> pa.Array:
    """Return texts as they are, plain values as they are written, and null for what is no text (lists, tables)."""
    if pa.types.is_nested(array.type):
        return pa.nulls(len(array), pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type)):
        try:
            return array.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(len(array), pa.string())
    try:
        return array.cast(pa.binary()).cast(pa.string())  # this way round checks UTF-8
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary()).to_pylist()
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in raw], pa.string())
