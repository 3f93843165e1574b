"""Read tables that are text: a URL a line, comma- or tab-separated values, JSON; packed or not, in flat memory.

A record that cannot be read, one with a NUL among them, is a row that says `broken_line`; where a packed file ends
early a last row says so.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from pipeline.inputs.coerce import MARK
from pipeline.inputs.delimited import NUL, Layout, read_records, sniff
from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.json_array import elements
from pipeline.inputs.jsonl import MAX_LINE, decoded, filled_lines, from_json, marked_coding
from pipeline.inputs.parquet import open_input

FORMATS = {
    **{".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "txt"},
    **{".json": "json", ".jsonl": "ndjson", ".ndjson": "ndjson"},
}
"""Ending -> format. What is JSON is told by its first bytes besides."""
PACKED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ\x00"}
"""Ending -> first bytes of what packs a file."""
READABLE = "tables can be .parquet, .csv, .tsv, .txt (a URL a line), .json, .jsonl; text also .gz, .bz2, .zst, .xz"
SCHEMALESS = ("json", "ndjson")
"""Formats whose rows may have other columns than the first ones."""
UNPACKERS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".zst": lambda file: pa.CompressedInputStream(file, "zstd"),
    ".xz": lzma.LZMAFile,
}
PIECE = 1 << 16
HEAD = 1 << 20
"""Characters of a file that are looked at to learn its layout."""
HEAD_BYTES = 4
"""First bytes that say in which coding a text is written."""
CONTROL = re.compile("[\x01-\x08\x0e-\x19\x1c-\x1f]")
"""Characters that text has none of, but for NULs and a few that systems end files with."""
LOOKED_AT = 100
"""Objects whose keys are taken for the columns of a JSON file."""
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What the unpackers raise for damaged bytes and early ends."""
ONLY_NULS = "it begins with NUL bytes alone: it was not written to its end, or lost what it held"
Values = list[str | None]


@dataclass(frozen=True)
class TextTable:
    """How a file of text is to be read: its format (csv, tsv, txt, json, ndjson), its columns, and how values are set
    apart."""

    url: str
    format: str
    columns: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)


def named_format(url: str) -> str:
    """Return the format that a file's name says it has, that of a packed one too; "" for another name."""
    name = url.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return FORMATS.get(f".{name.rpartition('.')[2]}", "") if "." in name else ""


@contextmanager
def unpacked(url: str) -> Iterator[Any]:
    """Open a file for reading, unpacked where its first bytes say that it is packed, a text as UTF-8 where they say
    that it is written in UTF-16 or UTF-32. Raises OSError."""
    with open_input(url) as raw:
        head = raw.read(8)
        raw.seek(0)
        ending = next((ending for ending, mark in PACKED.items() if head.startswith(mark)), "")
        if ending:
            yield _Text(_Unpacked(UNPACKERS[ending](raw)))
        else:
            yield _Text(raw) if coding_of(head) else raw


class _Unpacked:
    """What an unpacker gives, in short pieces: what comes before damage is not lost with the error."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; none at the end. Raises what the unpacker does."""
        return bytes(self._file.read1(PIECE if size < 0 else min(size, PIECE)))


class _Text:
    """The bytes of a text in UTF-8, whatever its first bytes say it is written in."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._ready = b""
        self._recode: Callable[[bytes, bool], str] | None = None
        self._is_new = self._more = True

    def read(self, size: int = -1) -> bytes:
        """Return some bytes, at most `size`; none at the end. Raises what the file below does."""
        while self._more and not self._ready:
            data = self._start() if self._is_new else self._file.read(PIECE)
            self._more = bool(data)
            self._ready = self._recode(data, not data).encode() if self._recode else data
        end = len(self._ready) if size < 0 else size
        found, self._ready = self._ready[:end], self._ready[end:]
        return found

    def _start(self) -> bytes:
        """Return the first bytes, once they say how the text is written."""
        head = b""
        while len(head) < HEAD_BYTES and (piece := self._file.read(PIECE)):
            head += piece
        self._is_new = False
        if coding := coding_of(head):
            self._recode = codecs.getincrementaldecoder(coding)("replace").decode
        return head


def coding_of(head: bytes) -> str:
    """Return the coding, if it is not UTF-8, in which a text with these first bytes is written: by its byte-order mark,
    else by the zeros beside its first two letters."""
    if coding := marked_coding(head):
        return coding
    zeros = [byte == 0 for byte in head[:HEAD_BYTES]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else ""


def _head(url: str) -> bytes:
    """Return the first bytes of a file, unpacked, as far as they can be read. Raises OSError, and BrokenInput for
    none."""
    head = b""
    try:
        with unpacked(url) as file:
            while len(head) < HEAD and (piece := file.read(HEAD - len(head))):
                head += piece
    except UNPACKING as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if not head:
            raise BrokenInput(url, f"cannot be unpacked: {error or type(error).__name__}") from error
    return head


def look(url: str, mapping: Mapping[str, str]) -> TextTable:
    """Return how a file of text is to be read; `mapping` is our column -> its column.

    A file without a header has column_1, column_2 and so on; where one of them alone holds URLs that is the column of
    URLs, and beside it a single other one is the text. Raises OSError, and BrokenInput for what is no table: its cause
    names what is readable.
    """
    head = _head(url)
    text, wanted = decoded(head), mapping["url"]
    if not text.strip():
        return TextTable(url, "txt", (wanted,))
    format_ = _format(url, head, text)
    if not format_:
        raise BrokenInput(url, f"no table that can be read; {READABLE}" if text.strip(NUL) else ONLY_NULS)
    if format_ in ("json", "ndjson"):
        return TextTable(url, format_, _keys(url, format_, head, wanted))
    if format_ == "txt":
        return TextTable(url, "txt", (wanted,))
    layout = sniff(text, format_, wanted)
    columns = layout.columns
    if wanted not in columns and not layout.url and NUL in _first_line(text):
        raise BrokenInput(url, f"NUL bytes stand where its columns should be named, and {wanted!r} is none of the rest")
    if layout.url and wanted not in columns:
        other = mapping.get("text", "") if len(columns) == 2 else ""
        columns = tuple(wanted if name == layout.url else other or name for name in columns)
    return TextTable(url, format_, columns, layout)


def _format(url: str, head: bytes, text: str) -> str:
    """Return a file's format: JSON by its first bytes, the others by name; "" for what is no text."""
    named, start = named_format(url), text.replace(NUL, "").lstrip()
    if not is_text(text):
        return ""
    if start.startswith("[") and named in ("json", "ndjson", ""):
        return "json"
    if start.startswith("{") and named in ("json", "ndjson", "txt", ""):
        return "ndjson"
    if named == "txt":
        return "tsv" if "\t" in start.partition("\n")[0].strip() else "txt"
    return named if named in ("csv", "tsv", "ndjson") else ""


def is_text(text: str) -> bool:
    """Tell a text, whose NULs may be those of a damage, from what is none: more than one NUL in a hundred characters,
    and nothing else or as many others that no text has."""
    bare = text.replace(NUL, "")
    has_few = len(text) - len(bare) <= len(text) // 100
    return has_few or (bool(bare.strip()) and len(CONTROL.findall(bare)) <= len(bare) // 100)


def _first_line(text: str) -> str:
    return next((line for line in io.StringIO(text, newline="") if line.replace(NUL, "").strip()), "")


def _keys(url: str, format_: str, head: bytes, wanted: str) -> tuple[str, ...]:
    """Return the keys of the first objects, in their order; of an empty array `wanted`. Raises BrokenInput where what
    it holds are no objects."""
    source = io.BytesIO(head)
    found = elements(source) if format_ == "json" else map(_object, filled_lines(source))
    keys: dict[str, None] = {}
    values = [value for value, _ in zip(found, range(LOOKED_AT), strict=False)]
    objects = [value for value in values if isinstance(value, dict | str)]
    if values and not objects:
        raise BrokenInput(url, "JSON that is no table; wanted an array of objects, or an object a line")
    for value in objects:
        keys.update(dict.fromkeys(value if isinstance(value, dict) else ()))
    return tuple(keys) if values else (wanted,)


def tables(table: TextTable, names: Sequence[str], rows: int) -> Iterator[tuple[list[Values], list[str | None]]]:
    """Yield (the values of these columns, and of each row the fault or None), at most `rows` rows at a time, in order.

    Raises BrokenInput where nothing can be read.
    """
    values: list[Values] = []
    faults: list[str | None] = []
    empty: Values = [None] * len(names)
    for row in _rows(table, names):
        values.append(empty if row is None else row)
        faults.append("broken_line" if row is None else None)
        if len(values) == rows:
            yield _columns(values), faults
            values, faults = [], []
    if values:
        yield _columns(values), faults


def _columns(rows: list[Values]) -> list[Values]:
    return [list(column) for column in zip(*rows, strict=True)]


def _rows(table: TextTable, names: Sequence[str]) -> Iterator[Values | None]:
    """Yield of each record the values of these columns, or None for one that cannot be read."""
    try:
        with unpacked(table.url) as file:
            if table.format in ("json", "ndjson"):
                found = elements(file) if table.format == "json" else map(_object, filled_lines(file))
                yield from (_of_object(value, names) for value in found)
            elif table.format == "txt":
                yield from _of_lines(file, len(names))
            else:
                yield from _of_records(table, file, names)
    except UNPACKING as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield None  # a packed file that ends early: what came before is good


def _of_lines(file: IO[bytes], count: int) -> Iterator[Values | None]:
    blank: Values = [None] * (count - 1)
    for line in text_lines(file):
        if line is None:
            yield None
        elif url := line.strip():
            yield None if NUL in url else [url, *blank]


def _of_records(table: TextTable, file: IO[bytes], names: Sequence[str]) -> Iterator[Values | None]:
    places = [table.columns.index(name) for name in names]
    for record in read_records(text_lines(file), table.layout):
        yield None if record is None else [record[place] or None for place in places]


def text_lines(file: IO[bytes]) -> Iterator[str | None]:
    """Yield the lines of a file in UTF-8 with their ends (LF, CR LF or CR), None for one longer than MAX_LINE
    characters."""
    text = io.TextIOWrapper(io.BufferedReader(_Raw(file), 1 << 20), "utf-8", "replace", newline="")
    first = True
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE and not line.endswith(("\n", "\r")):
            while (rest := text.readline(MAX_LINE)) and not rest.endswith(("\n", "\r")):
                pass
            yield None
        else:
            yield line.lstrip(MARK) if first else line
        first = False


class _Raw(io.RawIOBase):
    """What can only be read, as a raw stream of Python's."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _object(line: bytes | None) -> Any:
    return None if line is None else from_json(decoded(line))


def _of_object(value: Any, names: Sequence[str]) -> Values | None:
    """Return an object's values as texts; a text alone is taken for the URL, which comes first."""
    if isinstance(value, str):
        return [value, *([None] * (len(names) - 1))]
    return [_as_text(value.get(name)) for name in names] if isinstance(value, dict) else None


def _as_text(value: Any) -> str | None:
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not value.isascii() else value
    if value is None or isinstance(value, dict | list):
        return None
    return json.dumps(value)
