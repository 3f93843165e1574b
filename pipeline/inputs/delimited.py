"""Read comma- and tab-separated values: learn the layout from a file's head, then read record by record; one that does
not fit is passed over, and reading goes on with the line behind its first."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.inputs.jsonl import MAX_LINE

DELIMITERS = ",;\t|"
MAX_RECORD = 256 << 10
"""Characters of a record of several lines: a quote that is never closed takes no more of a file."""
URL = re.compile(r"\s*(?:https?|s3|gs|ftp|data|file):", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The columns of a file, what stands between its values, whether its first record names the columns.

    `url`: the column that holds URLs, where columns have no names and it alone does. `literal`: quotes may be text, as
    many writers of tab-separated values leave them.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    header: bool = True
    url: str = ""
    literal: bool = False

    @property
    def count(self) -> int:
        """Return the number of values of a record."""
        return len(self.columns)


def sniff(text: str, format_: str, wanted: str) -> Layout:
    """Return the layout of a file by its head; a first record that names `wanted`, or holds no URL, is the header.

    Columns without a header are column_1, column_2 and so on.
    """
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "").rstrip("\r\n")
    choices = "\t" if format_ == "tsv" else DELIMITERS
    heads = {delimiter: _first_record(text, delimiter, first) for delimiter in choices}
    named = [delimiter for delimiter, values in heads.items() if wanted in values]
    several = [delimiter for delimiter, values in heads.items() if len(values) > 1]
    with_urls = [delimiter for delimiter in several if any(URL.match(value) for value in heads[delimiter])]
    delimiter = (*named, *with_urls, *sorted(several, key=lambda one: -len(heads[one])), choices[0])[0]
    values = heads[delimiter]
    urls = [place for place, value in enumerate(values) if URL.match(value)]
    if wanted in values or not urls:
        return Layout(tuple(values), delimiter, literal=format_ == "tsv")
    columns = tuple(f"column_{place}" for place in range(1, len(values) + 1))
    return Layout(columns, delimiter, False, columns[urls[0]] if len(urls) == 1 else "", format_ == "tsv")


def _first_record(text: str, delimiter: str, first: str) -> list[str]:
    """Return the values of the first record, without white space around them."""
    try:
        filled = (line for line in io.StringIO(text, newline="") if line.strip())
        values = next(csv.reader(filled, delimiter=delimiter, strict=True), [])
    except csv.Error:
        values = first.split(delimiter)
    values = [value.strip() for value in values]
    while len(values) > 1 and not values[-1]:
        values.pop()  # a delimiter at the end of the line
    return values


class _Lines:
    """Lines, of which some are put back."""

    def __init__(self, lines: Iterator[str | None]) -> None:
        self._lines, self._again = lines, deque[str | None]()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str | None:
        return self._again.popleft() if self._again else next(self._lines)

    def put_back(self, lines: list[str | None]) -> None:
        """Give these lines again, before all others."""
        self._again.extendleft(reversed(lines))


def read_records(lines: Iterator[str | None], layout: Layout) -> Iterator[list[str] | None]:
    """Yield the records behind the header, each of `layout.count` values, and None for one that does not fit or a line
    that is None (too long); blank lines are no records."""
    csv.field_size_limit(MAX_LINE)
    source, delimiter, count = _Lines(lines), layout.delimiter, layout.count
    header = layout.header
    for line in source:
        if line is None:
            record = None
        elif not line.strip():
            continue
        elif '"' not in line:
            values = line.rstrip("\r\n").split(delimiter)
            record = values if len(values) == count else _fitted(values, count)
        else:
            record = _quoted(line, source, layout)
        if count == 1 and record is None and line is not None and not line.lstrip().startswith('"'):
            record = [line.strip()]  # one column alone: what looks like a delimiter belongs to it
        if header:
            header = False
        else:
            yield record


def _fitted(values: list[str], count: int) -> list[str] | None:
    """Return so many values; empty ones behind them are let go."""
    return values[:count] if len(values) >= count and not any(values[count:]) else None


def _quoted(line: str, source: _Lines, layout: Layout) -> list[str] | None:
    """Return the record that begins with this line and has quotes, line ends in quotes too; None, and the lines behind
    the first put back, where that is no record."""
    if layout.literal and (record := _literal(line, layout)):
        return record
    taken: list[str | None] = []

    def pull() -> Iterator[str]:
        yield line
        size = len(line)
        while size <= MAX_RECORD:
            more = next(source, "")
            if more != "":
                taken.append(more)
            if not more:
                return
            size += len(more)
            yield more

    try:
        record = _fitted(next(csv.reader(pull(), delimiter=layout.delimiter, strict=True)), layout.count)
    except csv.Error:
        record = _escaped(line, layout)
        if record is not None:
            source.put_back(taken)
            return record
    if record is not None and not any(_stands_alone(more, layout) for more in taken):
        return record
    source.put_back(taken)
    return _fitted(line.rstrip("\r\n").split(layout.delimiter), layout.count) if layout.literal else None


def _escaped(line: str, layout: Layout) -> list[str] | None:
    """Return the values of a line whose quotes inside quotes stand behind a backslash, as databases write them."""
    if '\\"' not in line:
        return None
    dialect: Any = {"delimiter": layout.delimiter, "escapechar": "\\", "doublequote": False, "strict": True}
    try:
        return _fitted(next(csv.reader([line], **dialect)), layout.count)
    except csv.Error:
        return None


def _literal(line: str, layout: Layout) -> list[str] | None:
    """Return the values of a line of tab-separated values by its tabs alone, quotes around a whole value taken off;
    None where a value begins with a quote that is not closed in it."""
    values = _fitted(line.rstrip("\r\n").split(layout.delimiter), layout.count)
    if values is None:
        return None
    if any(value.startswith('"') and value.count('"') % 2 for value in values):
        return None
    return [_bare(value) for value in values]


def _bare(value: str) -> str:
    inside = value[1:-1].replace('""', "")
    whole = len(value) > 1 and value[0] == value[-1] == '"' and '"' not in inside
    return value[1:-1].replace('""', '"') if whole else value


def _stands_alone(line: str | None, layout: Layout) -> bool:
    """Tell whether a line inside quotes is a record of its own, so that the quote before it was a stray one."""
    if line is None:
        return True
    values = line.rstrip("\r\n").split(layout.delimiter)
    is_record = layout.count > 1 and len(values) == layout.count and line.count('"') % 2 == 0
    return is_record and any(URL.match(value) for value in values)
