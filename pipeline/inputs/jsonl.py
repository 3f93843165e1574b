"""Read LlamaGen's JSON lines as a table: a row per line, captions by their place in the list, paths that stay inside
the data set."""

import codecs
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.schema import COLUMNS
from pipeline.inputs.coerce import MARK, coerce, without_mark

MAX_LINE = 16 << 20
"""Bytes; a longer line is broken and passed over without being held."""
BLOCK = 1 << 20
SHORT = 256
"""Bytes up to which a line is looked at for the white space of every script."""
MAX_DIGITS = 1000
"""Digits of a whole number that is held as one; a longer one is a float, infinite as a rule."""
FAULT = "fault"
FAULT_COLUMN = "tessera_fault"
"""Where a table made of the input says which rows cannot be used, and why."""


@dataclass(frozen=True)
class Folder:
    """Where relative paths of a file start (`start`), and the folder that they must stay in (`root`, and what it is
    called in full)."""

    start: str
    root: str
    real_root: str = ""

    def inside(self, path: str) -> str | None:
        """Return a path relative to the root, or None for one that leads out of it."""
        if "\0" in path or "://" in path:
            return None
        whole = posixpath.normpath(posixpath.join(self.start, path))
        for root in (self.root, self.real_root):
            if root and whole.startswith(root.rstrip("/") + "/"):
                return whole[len(root.rstrip("/")) + 1 :]
        return None


def lines(file: Any) -> Iterator[bytes | None]:
    """Yield the lines of a binary file without their ends, None for one longer than MAX_LINE."""
    waiting, too_long = b"", False
    while block := file.read(BLOCK):
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield None if too_long or len(waiting) + len(line) > MAX_LINE else waiting + line
            waiting, too_long = b"", False
        too_long = too_long or len(waiting) + len(rest) > MAX_LINE
        waiting = b"" if too_long else waiting + rest
    if waiting or too_long:
        yield None if too_long else waiting


def filled_lines(file: Any) -> Iterator[bytes | None]:
    """Yield the lines that hold more than white space, as `lines` does: a blank one is no row."""
    return (line for line in lines(file) if line is None or not _is_blank(line))


def _is_blank(line: bytes) -> bool:
    return not line.strip() or (len(line) < SHORT and not decoded(line).strip())


def decoded(data: bytes) -> str:
    """Return text without the byte-order mark before it, which says whether it is UTF-8, UTF-16 or UTF-32; what cannot
    be decoded is U+FFFD."""
    return data.decode(marked_coding(data) or "utf-8", "replace").lstrip(MARK)


def marked_coding(data: bytes) -> str:
    """Return the coding that a text's byte-order mark says it is written in: utf-32, utf-16, or "" for UTF-8 and for
    none."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""


def read_line(line: bytes | None, folder: Folder, mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return a line's values by our columns; `fault` says why it is none: broken_line, bad_url, blocked_path."""
    values = _object(line)
    path = values.get(mapping["url"]) if values else None
    if not isinstance(path, str):
        return {FAULT: "broken_line"}
    row = {ours: values.get(theirs) for ours, theirs in mapping.items()} if values else {}
    captions = row["text"] if isinstance(row["text"], list) else [row["text"]]
    row["text"] = _text(captions[0] if captions else None)
    row["top_caption"] = (
        _text(row["top_caption"]) if row.get("top_caption") else _text(captions[1] if len(captions) > 1 else None)
    )
    inside = folder.inside(path)
    return {
        **row,
        "url": _text(path if inside is None else inside),
        FAULT: "bad_url" if not path else None if inside else "blocked_path",
    }


def _object(line: bytes | None) -> dict[str, Any] | None:
    if line is None:
        return None
    found = from_json(decoded(line))
    return found if isinstance(found, dict) else None


def from_json(text: str) -> Any:
    """Return what a text of JSON holds, None for what is none."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _whole_number(digits: str) -> int | float:
    """Return a number of any length: Python's whole ones are bounded, and a longer one costs no line."""
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


DECODER = json.JSONDecoder(parse_int=_whole_number)


def _text(value: Any) -> str | None:
    return without_mark(whole_text(value)) if isinstance(value, str) else None


def whole_text(text: str) -> str:
    """Return a text that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def table_of(rows: list[dict[str, Any]], mapping: Mapping[str, str], more: tuple[str, ...] = ()) -> pa.Table:
    """Return rows as a table under the input's column names; `fault` and the texts named by `more` stand beside
    them."""
    columns = {theirs: _column([row.get(ours) for row in rows], COLUMNS[ours].type) for ours, theirs in mapping.items()}
    columns.update({name: _column([row.get(name) for row in rows], pa.string()) for name in more})
    return pa.table({**columns, FAULT_COLUMN: _column([row.get(FAULT) for row in rows], pa.string())})


def _column(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Return values of any kind in our type; what cannot be said in it is null."""
    if pa.types.is_string(type_):
        return pa.array([_text(value) for value in values], type_)
    return coerce(pa.chunked_array([pa.array([_number(value) for value in values], pa.float64())]), type_)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, list | dict | bool) or value is None else float(value)
    except (ValueError, OverflowError):
        return None
