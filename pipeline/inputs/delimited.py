"""Read comma- and tab-separated values: learn the layout from a file's head, then read record by record.

A cell in quotes that close as they should (RFC 4180) is one cell, whatever its lines look like; a record that does not
fit is passed over, one with a NUL in it too, and behind a stray quote reading goes on with the next line.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.inputs.jsonl import MAX_LINE

DELIMITERS = ",;\t|"
MAX_RECORD = 4 * MAX_LINE
"""Characters held of a record of several lines, OF_LINE more for each: a quote that is never closed takes no more of a
file. A value may have MAX_LINE characters."""
OF_LINE = 64
NUL = "\0"
"""What a file that was not written to its end holds in place of text; no record has it."""
BEHIND_BACKSLASH = re.compile(r'\\(["\\])')
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

    Columns without a header are column_1, column_2 and so on. NULs count as not there.
    """
    text = text.replace(NUL, "")
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
    """Yield the records behind the header, each of `layout.count` values, and None for one that does not fit, that has
    a NUL, or a line that is None (too long); blank lines are no records, and a line of NULs is no header."""
    csv.field_size_limit(MAX_LINE)
    source, delimiter, count = _Lines(lines), layout.delimiter, layout.count
    header = layout.header
    for line in source:
        if line is None:
            record = None
        elif not line.strip():
            continue
        elif NUL in line and not line.replace(NUL, "").strip():
            yield None
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
            yield None if record is not None and any(NUL in value for value in record) else record


def _fitted(values: list[str], count: int) -> list[str] | None:
    """Return so many values; empty ones behind them are let go."""
    return values[:count] if len(values) >= count and not any(values[count:]) else None


def _quoted(line: str, source: _Lines, layout: Layout) -> list[str] | None:
    """Return the record that begins with this line and has quotes, line ends in quotes too; None where that is no
    record, and the lines behind the first are put back unless the quotes are closed as they should be."""
    if layout.literal and (record := _literal(line, layout)):
        return record
    values, taken = _closed(line, source, layout)
    if values is None and any('\\"' in (one or "") for one in (line, *taken)):
        source.put_back(taken)
        values, taken = _closed(line, source, layout, _doubled)
    if values is not None and any(value[:1].isspace() and value.lstrip().startswith('"') for value in values):
        source.put_back(taken)
        closed, more = _closed(line, source, layout, blanks=True)  # what follows a delimiter and a blank
        if closed is not None and _fitted(closed, layout.count):
            return _fitted(closed, layout.count)
        source.put_back(more)
        values, taken = _closed(line, source, layout)
    if values is not None and not _are_rows(taken, layout):
        record = _fitted(values, layout.count)
        if record is not None or (taken and not any(_stands_alone(more, layout) for more in taken)):
            return record
    source.put_back(taken)
    return _fitted(line.rstrip("\r\n").split(layout.delimiter), layout.count) if layout.literal else None


def _as_written(line: str) -> str:
    return line


def _doubled(line: str) -> str:
    """Return a line whose quotes inside quotes stand behind a backslash, as databases and Spark write them, with two
    quotes for one."""
    return BEHIND_BACKSLASH.sub(lambda found: '""' if found[1] == '"' else found[1], line)


def _closed(
    line: str,
    source: _Lines,
    layout: Layout,
    written: Callable[[str], str] = _as_written,
    *,
    blanks: bool = False,
) -> tuple[list[str] | None, list[str | None]]:
    """Return the values of the record that begins with this line, None where its quotes do not close as they should,
    and the lines behind it that were taken. `blanks`: those before a value belong to none."""
    taken: list[str | None] = []

    def pull() -> Iterator[str]:
        yield written(line)
        size = len(line)
        while size <= MAX_RECORD:
            more = next(source, "")
            if more != "":
                taken.append(more)
            if not more:
                return
            size += len(more) + OF_LINE
            yield written(more)

    try:
        reader = csv.reader(pull(), delimiter=layout.delimiter, strict=True, skipinitialspace=blanks)
        return next(reader), taken
    except csv.Error:
        return None, taken


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


def _are_rows(taken: list[str | None], layout: Layout) -> bool:
    """Tell whether what quotes hold are rows behind a stray one: where quotes may be text, several lines, all of them
    records."""
    return layout.literal and len(taken) > 1 and all(_stands_alone(line, layout, odd=True) for line in taken)


def _stands_alone(line: str | None, layout: Layout, *, odd: bool = False) -> bool:
    """Tell whether a line inside quotes could be a record of its own, one that ends within quotes too where `odd`."""
    if line is None:
        return True
    values = line.rstrip("\r\n").split(layout.delimiter)
    is_record = layout.count > 1 and len(values) == layout.count and (odd or line.count('"') % 2 == 0)
    return is_record and any(URL.match(value) for value in values)
