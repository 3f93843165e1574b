"""Comma- and tab-separated values: the layout that a head shows, records of any writer, and what is none."""

import csv
import io

import pytest

from pipeline.inputs import delimited as module
from pipeline.inputs.delimited import Layout, read_records, sniff

U = "http://a.test/1.jpg"
COLUMNS = ("URL", "TEXT")


def records(text, columns=COLUMNS, **layout):
    return list(read_records(iter(io.StringIO(text, newline="")), Layout(columns, **layout)))


@pytest.mark.parametrize(
    ("text", "format_", "expected"),
    [
        ("URL,TEXT\n", "csv", Layout(COLUMNS, ",")),
        ("\n URL ;TEXT;a,b\r\n", "csv", Layout(("URL", "TEXT", "a,b"), ";")),
        ("URL|TEXT\n", "csv", Layout(COLUMNS, "|")),
        ("URL\tTEXT\n", "csv", Layout(COLUMNS, "\t")),
        ('"URL","TEXT, of it"\n', "csv", Layout(("URL", "TEXT, of it"), ",")),
        ("URL\n", "csv", Layout(("URL",), ",")),
        ("URL,TEXT,\n", "csv", Layout(COLUMNS, ",")),  # a delimiter behind the last value
        (",URL,TEXT\n", "csv", Layout(("", "URL", "TEXT"), ",")),  # an index without a name
        ("link,words\n", "csv", Layout(("link", "words"), ",")),
        ("URL\tTEXT, long\n", "tsv", Layout(("URL", "TEXT, long"), "\t", literal=True)),
        # no header
        (f"{U},a cat\n", "csv", Layout(("column_1", "column_2"), ",", False, "column_1")),
        (f"a cat\t{U}\n", "tsv", Layout(("column_1", "column_2"), "\t", False, "column_2", True)),
        (f"{U}\n", "csv", Layout(("column_1",), ",", False, "column_1")),
        (f"{U},{U}\n", "csv", Layout(("column_1", "column_2"), ",", False, "")),
    ],
)
def test_a_layout_is_seen_in_the_head(text, format_, expected):
    assert sniff(text, format_, "URL") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("u,a\r\n\r\nv,b\n  \nw,c", [["u", "a"], ["v", "b"], ["w", "c"]]),
        ('u,"a, b ""c"""\n', [["u", 'a, b "c"']]),
        ('u,"two\nlines, or\r\n\r\nfour"\nv,b\n', [["u", "two\nlines, or\r\n\r\nfour"], ["v", "b"]]),
        ('"two\nlines",http://a.test\n', [["two\nlines", "http://a.test"]]),
        ('u,24" monitor\nv,12" disc\n', [["u", '24" monitor'], ["v", '12" disc']]),
        ('u,"he said \\"hi\\", twice"\nv,b\n', [["u", 'he said "hi", twice'], ["v", "b"]]),
        ("u,C:\\a\n", [["u", "C:\\a"]]),
        ('u, "a, b"\nv, "two\nlines"\n', [["u", "a, b"], ["v", "two\nlines"]]),  # blanks before quotes
        ('u, "a" or "b"\nv, "stray\nw,b\n', [["u", ' "a" or "b"'], ["v", ' "stray'], ["w", "b"]]),
        ("u,a,\nv,b,,\n", [["u", "a"], ["v", "b"]]),
        ("u\nv,b\n", [None, ["v", "b"]]),
        ("u,a,b\nv,b\n", [None, ["v", "b"]]),
        ('u,"a"b\nv,b\n', [None, ["v", "b"]]),
        ('u,"never closed\nv,b\nw,c\n', [None, ["v", "b"], ["w", "c"]]),
        ('u,"he said \\"hi\\",\nhttp://v,b\ntwice"\nv,b\n', [["u", 'he said "hi",\nhttp://v,b\ntwice'], ["v", "b"]]),
        ("", []),
    ],
)
def test_records_of_comma_separated_values(text, expected):
    assert records(f"URL,TEXT\n{text}") == expected
    assert records(text, header=False) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('u\t"quoted"\n', [["u", "quoted"]]),
        ('u\t"Never closed, he said\nv\tb\n', [["u", '"Never closed, he said'], ["v", "b"]]),
        ('u\t"Hello" she said\n', [["u", '"Hello" she said']]),
        ('u\t"two\nlines"\nv\tb\n', [["u", "two\nlines"], ["v", "b"]]),
        ('u\t"a ""b"" c"\n', [["u", 'a "b" c']]),
        ('u\t"see\nhttp://v\tb\nend"\nv\tb\n', [["u", "see\nhttp://v\tb\nend"], ["v", "b"]]),
        (
            'http://u\t"Open\nhttp://v\tb\nhttp://w\t24"\n',
            [["http://u", '"Open'], ["http://v", "b"], ["http://w", '24"']],
        ),
        ('u\t"a" and "b"\n', [["u", '"a" and "b"']]),
        ("u\ta\tb\n", [None]),
    ],
)
def test_records_of_tab_separated_values(text, expected):
    assert records(text, header=False, delimiter="\t", literal=True) == expected


def test_of_one_column_the_line_is_the_value():
    text = 'http://a.test/1,2.jpg\n"http://a.test/3,4.jpg"\n'
    assert records(text, ("URL",), header=False) == [["http://a.test/1,2.jpg"], ["http://a.test/3,4.jpg"]]


def test_a_quote_that_is_never_closed_takes_no_more_than_a_bound(monkeypatch):
    monkeypatch.setattr(module, "MAX_RECORD", 100)
    text = 'u,"open\n' + "a line of words\n" * 20 + "v,b\n"
    assert records(text, header=False) == [None] * 21 + [["v", "b"]]


@pytest.mark.parametrize(
    "cell",
    [
        f"a list:\n{U},a cat\nand no more",
        f"a list:\r\n{U},a cat",
        f"\n{U},a cat\n{U},a dog\n",
        f'he said ""look"":\n{U},a ""cat""',
        f"URL,TEXT\n{U},a cat\n" * 3,
    ],
)
def test_a_cell_in_quotes_stays_one_cell_whatever_its_lines_look_like(cell):
    """A URL that a caption holds is nobody's row: it was fetched."""
    assert records(f'u,"{cell}"\nv,b\n', header=False) == [["u", cell.replace('""', '"')], ["v", "b"]]


@pytest.mark.parametrize(
    "more", [f"{U},a cat\n", "words\n", f'"{U}","a cat"\n', f'{U},"a cat"\n', f'{U},"x" or "y"\n', f'{U},""\n']
)
def test_a_stray_quote_takes_no_row_behind_it(more):
    last = records(more, header=False)
    assert records(f'u,"stray\n{more}v,b\n', header=False) == [None, *last, ["v", "b"]]


def test_a_record_of_several_lines_with_too_many_values_is_one_that_does_not_fit():
    assert records('u,"two\nlines",more\nv,b\n', header=False) == [None, ["v", "b"]]


def test_a_cell_of_a_megabyte_is_one_cell():
    """It was as many broken lines as it has lines."""
    cell = f"{U},words\n" * 60_000
    assert records(f'u,"{cell}"\nv,b\n', header=False) == [["u", cell], ["v", "b"]]


def test_lines_that_are_too_long_are_none():
    lines = iter(["URL,TEXT\n", None, "u,a\n", 'v,"b\n', None, 'c"\n'])
    assert list(read_records(lines, Layout(COLUMNS))) == [None, ["u", "a"], None, None, None]


def test_what_pythons_writer_writes_is_read_as_it_was():
    rows = [["http://a.test/1", 'a "b", c\r\nd\te'], ["http://a.test/2", '"'], ["x", "\n"], ["y", " padded "]]
    for delimiter in ",;\t|":
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(rows)
        layout = {"delimiter": delimiter, "literal": delimiter == "\t"}
        assert records(text.getvalue(), header=False, **layout) == rows
