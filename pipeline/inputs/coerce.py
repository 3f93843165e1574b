"""Bring the input's columns to our types, whatever their drift: what cannot be said in a type is null."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MARK = "\ufeff"
"""The byte-order mark: it says how a file is written, and belongs to no value of it."""

MARKS = rf"^(\s*{MARK})+"
"""White space before a mark goes with it."""


def coerce(column: pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """Return a column in our type, whatever its drift: what cannot be said in it, infinities too, is null.

    Floats become whole pixels only where finite and in range; text that is not UTF-8 keeps its place with U+FFFD, and
    a byte-order mark before it goes. Of a list of texts the first is taken.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(type_):
        return _text(_first(array) if _is_list(array.type) else array)
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


def is_readable(given: pa.DataType, type_: pa.DataType) -> bool:
    """Tell whether `coerce` can bring values of a type to ours: where not, a column of it is null from end to end."""
    if pa.types.is_dictionary(given) or (pa.types.is_string(type_) and _is_list(given)):
        given = given.value_type
    if pa.types.is_null(given) or pa.types.is_string(given) or pa.types.is_large_string(given):
        return True
    if not pa.types.is_string(type_):
        numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        return any(is_number(given) for is_number in numbers[: 1 if type_ == pa.int64() else None])
    try:
        pa.nulls(0, given).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return not pa.types.is_nested(given)


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(is_kind(type_) for is_kind in (*kinds, *views))


def _first(array: pa.Array) -> pa.Array:
    """Return the first element of each list, null for an empty one."""
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    starts = array.offsets[: len(array)]  # of a list one more than there are lists, of a view as many
    filled = pc.fill_null(pc.greater(pc.list_value_length(array), 0), False)
    return array.values.take(pc.if_else(filled, starts, pa.scalar(None, starts.type)))


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
    """Return texts without the byte-order mark before them, plain values as they are written, and null for what is no
    text (tables, maps)."""
    text = _as_text(array)
    return pc.replace_substring_regex(text, MARKS, "") if _has_mark(text) else text


def _has_mark(text: pa.StringArray) -> bool:
    """Tell whether a byte-order mark stands anywhere in texts; most hold none of its first byte."""
    _, places, data = text.buffers()
    if data is None or not len(text):
        return False
    ends = np.frombuffer(places, np.int32)[text.offset : text.offset + len(text) + 1]
    said = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    mark = np.frombuffer(MARK.encode(), np.uint8)
    if said.max(initial=0) < mark[0]:
        return False
    heads = np.flatnonzero(said[: 1 - len(mark)] == mark[0])
    return bool(((said[heads + 1] == mark[1]) & (said[heads + 2] == mark[2])).any())


def without_mark(text: str) -> str:
    """Return a text without the byte-order marks before it, as `coerce` does."""
    return re.sub(MARKS, "", text, flags=re.ASCII) if MARK in text else text


def _as_text(array: pa.Array) -> pa.Array:
    if pa.types.is_nested(array.type):
        return pa.nulls(len(array), pa.string())
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    more = (pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    if not any(is_kind(array.type) for is_kind in (*kinds, *more)):
        try:
            return array.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(len(array), pa.string())
    try:
        return array.cast(pa.binary()).cast(pa.string())  # this way round checks UTF-8
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary()).to_pylist()
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in raw], pa.string())
