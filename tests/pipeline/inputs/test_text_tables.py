"""Tables in text: every format packed and not, headers or none, broken records with their places, flat rows."""

import bz2
import gzip
import io
import json
import lzma

import pyarrow as pa
import pytest

from pipeline.inputs import text_tables as module
from pipeline.inputs.errors import BrokenInput
from pipeline.inputs.text_tables import FORMATS, PACKED, READABLE, look, named_format, tables, text_lines, unpacked
from pipeline.recipes.datasets import TEXTS

MAPPING = {"url": "URL", "text": "TEXT"}
ROWS = [("http://a.test/1.jpg", "a cat, two dogs"), ("http://a.test/2.jpg", "東京の\u3000猫")]
WRITTEN = {
    ".csv": 'URL,TEXT\nhttp://a.test/1.jpg,"a cat, two dogs"\nhttp://a.test/2.jpg,東京の\u3000猫\n',
    ".tsv": "URL\tTEXT\nhttp://a.test/1.jpg\ta cat, two dogs\nhttp://a.test/2.jpg\t東京の\u3000猫\n",
    ".tab": "http://a.test/1.jpg\ta cat, two dogs\nhttp://a.test/2.jpg\t東京の\u3000猫\n",
    ".json": json.dumps([{"URL": url, "TEXT": text, "more": {}} for url, text in ROWS], indent=1),
    ".jsonl": "".join(json.dumps({"URL": url, "TEXT": [text, "b"]}) + "\r\n\r\n" for url, text in ROWS),
    ".ndjson": "".join(json.dumps({"TEXT": text, "URL": url}) + "\n" for url, text in ROWS),
    ".txt": "".join(f" {url}\r\n\r\n" for url, _ in ROWS),
}


def packed(data, ending):
    zstd = pa.Codec("zstd")
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lambda data: lzma.compress(data, preset=0)}
    return zstd.compress(data, asbytes=True) if ending == ".zst" else pack[ending](data)


@pytest.fixture
def read(tmp_path):
    """Return a function: name, bytes -> (columns of the table, rows of URL and TEXT with their faults)."""

    def of(name, data, names=("URL", "TEXT"), rows=100):
        path = tmp_path / name
        path.write_bytes(data)
        table = look(str(path), MAPPING)
        wanted = [name for name in names if name in table.columns]
        found = []
        for columns, faults in tables(table, wanted, rows):
            found += [(*values, fault) for *values, fault in zip(*columns, faults, strict=True)]
        return table.columns, found

    return of


def test_the_endings_of_folders_are_those_of_the_formats():
    assert set(TEXTS) == {f"{ending}{pack}" for ending in FORMATS for pack in ("", *PACKED)}
    assert named_format("s3://b/A.CSV.GZ") == "csv"
    assert [named_format(name) for name in ("a.parquet", "csv", "a.gz", "a.csv.zip")] == ["", "", "", ""]


@pytest.mark.parametrize("pack", ["", *PACKED])
@pytest.mark.parametrize("ending", WRITTEN)
def test_every_format_packed_or_not(read, ending, pack):
    columns, rows = read(f"a{ending}{pack}", packed(WRITTEN[ending].encode(), pack))
    texts = [] if ending == ".txt" else [[text] for _, text in ROWS]
    assert rows == [(url, *(texts[place] if texts else ()), None) for place, (url, _) in enumerate(ROWS)]
    assert {*columns} == (
        {"URL"} if ending == ".txt" else {"URL", "TEXT", "more"} if ending == ".json" else {"URL", "TEXT"}
    )


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-be with its mark", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("ending", WRITTEN)
def test_a_byte_order_mark_belongs_to_no_name_and_no_value(read, ending, coding):
    """JSON in UTF-16 was a broken line each, and a file of one array was lost."""
    name, _, mark = coding.partition(" ")
    data = (("\ufeff" if mark else "") + WRITTEN[ending].lstrip()).encode(name)
    for pack in ("", ".gz"):
        _, rows = read(f"a{ending}{pack}", packed(data, pack))
        texts = [] if ending == ".txt" else [[text] for _, text in ROWS]
        assert rows == [(url, *(texts[place] if texts else ()), None) for place, (url, _) in enumerate(ROWS)]


def test_a_text_in_utf16_comes_in_pieces_of_any_size(tmp_path, monkeypatch):
    """Two bytes a letter there, three here: no piece is larger than what was asked for."""
    monkeypatch.setattr(module, "PIECE", 5)
    (tmp_path / "a").write_bytes("東京の猫 🐈.".encode("utf-16") + b"\x41")
    with unpacked(str(tmp_path / "a")) as file:
        pieces = list(iter(lambda: file.read(4), b""))
    assert b"".join(pieces).decode() == "東京の猫 🐈.\ufffd"  # half a letter at the end
    assert max(map(len, pieces)) == 4


@pytest.mark.parametrize("data", [b"[]", b" [\n] ", b"[][]", b"\xef\xbb\xbf[]", "[]".encode("utf-16")])
def test_an_empty_array_is_a_table_without_rows(read, data):
    """It was a lost file."""
    assert read("a.json", data) == (("URL",), [])


def test_a_number_of_any_length_costs_no_row(read):
    """Python converts no more than 4,300 digits: the rest of an array was lost for one."""
    rows = [{"URL": "u", "n": 7}, {"URL": "v", "n": "NUMBER"}, {"URL": "w", "n": 8}]
    array = json.dumps(rows).replace('"NUMBER"', "9" * 5000)
    expected = [("u", "7", None), ("v", "Infinity", None), ("w", "8", None)]
    assert read("a.json", array.encode(), ("URL", "n"))[1] == expected
    lines = array[1:-1].replace("}, {", "}\n{")
    assert read("a.jsonl", lines.encode(), ("URL", "n"))[1] == expected


def test_batches_hold_so_many_rows_and_a_broken_record_is_one(read):
    data = b"URL,TEXT\nu,a\nbroken\nv,\xff\nw,\n\n"
    assert read("a.csv", data, rows=2)[1] == [
        ("u", "a", None),
        (None, None, "broken_line"),
        ("v", "\ufffd", None),
        ("w", None, None),  # nothing is written: null
    ]


def test_lines_of_json_that_are_no_objects_are_broken(read):
    data = (
        b'{"URL": "u", "TEXT": ["a", "b"], "n": 18446744073709551615}\nno\n["x"]\n{"TEXT": {"a": 1}, "URL": 7}\n"v"\n'
    )
    assert read("a.jsonl", data, ("URL", "TEXT", "n"))[1] == [
        ("u", "a", "18446744073709551615", None),
        (None, None, None, "broken_line"),
        (None, None, None, "broken_line"),
        ("7", None, None, None),
        ("v", None, None, None),
    ]
    assert read("a.json", b'["u", {"URL": "v"}, ')[1] == [("u", None), ("v", None), (None, "broken_line")]


def test_lines_of_json_whose_first_is_broken_are_read(read):
    """The file was lost for it."""
    assert read("a.jsonl", b'oops\n{"URL": "u"}\n')[1] == [(None, "broken_line"), ("u", None)]
    with pytest.raises(BrokenInput, match="no table"):
        read("b.jsonl", b"oops\nand more\n")


def test_a_line_that_is_too_long_is_broken_and_not_held(read, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", 20)
    data = b"http://a.test/1.jpg\nhttp://a.test/" + b"1" * 50 + b"\nhttp://a.test/2\n"
    assert read("a.txt", data)[1] == [("http://a.test/1.jpg", None), (None, "broken_line"), ("http://a.test/2", None)]


@pytest.mark.parametrize("pack", [".gz", ".bz2", ".xz"])
def test_a_packed_file_that_ends_early_has_the_rows_before_and_one_that_says_so(read, pack):
    text = "URL,TEXT\n" + "".join(f"http://a.test/{n * n},{n}\n" for n in range(80_000))
    data = packed(text.encode(), pack)
    _, rows = read(f"a.csv{pack}", data[: len(data) * 3 // 4], rows=1 << 20)
    assert len(rows) > 1000
    assert rows[:2] == [("http://a.test/0", "0", None), ("http://a.test/1", "1", None)]
    assert rows[-1] == (None, None, "broken_line")
    with pytest.raises(BrokenInput, match=r"cannot be unpacked: ."):
        read(f"a.csv{pack}", data[:6] + b"\xff" * 100)


def test_several_archives_in_one_file_are_one_table(read):
    data = gzip.compress(b"URL,TEXT\nu,a\n") + gzip.compress(b"v,b\n")
    assert read("a.csv.gz", data)[1] == [("u", "a", None), ("v", "b", None)]


@pytest.mark.parametrize(
    ("name", "data", "columns"),
    [
        ("a.csv", b"http://a.test/1.jpg,words\n", ("URL", "TEXT")),
        ("a.csv", b"words,http://a.test/1.jpg\n", ("TEXT", "URL")),
        ("a.csv", b"words,http://a.test/1.jpg,7\n", ("column_1", "URL", "column_3")),
        ("a.csv", b"http://a.test,http://a.test/1.jpg\n", ("column_1", "column_2")),
        ("a.txt", b"http://a.test/1.jpg\twords\n", ("URL", "TEXT")),  # tabs: it is no list of URLs
        ("a", b'[{"URL": "http://a.test/1.jpg"}]', ("URL",)),
        ("a.txt", b'{"URL": "http://a.test/1.jpg", "n": 1}', ("URL", "n")),
        ("a.csv", b"URL,TEXT\n" + b"u,a\n" * 99 + b"u,\0\n", ("URL", "TEXT")),  # a stray NUL
        ("a.csv", b"", ("URL",)),
    ],
)
def test_columns_without_names(read, name, data, columns):
    assert read(name, data)[0] == columns


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.json", b'{\n "URL": "u"\n}', "JSON that is no table; wanted an array of objects, or an object a line"),
        ("a.json", b"[1, 2]", "JSON that is no table"),
        ("a.csv", b"URL\0\1\2", READABLE),
        ("a", b"words", READABLE),
    ],
)
def test_what_is_no_table_says_what_can_be_read(read, name, data, says):
    with pytest.raises(BrokenInput) as caught:
        read(name, data)
    assert says in caught.value.cause
    assert ".csv" in READABLE


def test_lines_end_as_any_system_ends_them():
    assert list(text_lines(io.BytesIO(b"a\r\nb\rc\n\xe2\x80\xa8d"))) == ["a\r\n", "b\r", "c\n", "\u2028d"]


def test_a_file_is_unpacked_by_its_bytes_not_by_its_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"packed"))
    with unpacked(str(tmp_path / "a.csv")) as file:
        assert file.read() == b"packed"
    with pytest.raises(FileNotFoundError), unpacked(str(tmp_path / "none")):
        pass


NULS = b"\0" * 4096
BROKEN = (None, None, "broken_line")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("behind.csv", b"URL,TEXT\nu,a\n" + NULS, [("u", "a", None), BROKEN]),
        ("between.csv", b"URL,TEXT\nu,a\n" + NULS + b"\nv,b\n", [("u", "a", None), BROKEN, ("v", "b", None)]),
        ("before.csv", NULS + b"URL,TEXT\nu,a\n", [("u", "a", None)]),
        ("alone.csv", NULS + b"\n\0\nURL,TEXT\nu,a\n", [BROKEN, BROKEN, ("u", "a", None)]),
        ("cell.csv", b'URL,TEXT\nu,a\0\n\0v,b\nw,"c\n\0"\nx,"d"\n', [BROKEN, BROKEN, BROKEN, ("x", "d", None)]),
        ("far.csv", b"URL,TEXT\n" + b"u,a\n" * 999 + b"v,\0b\n", [*[("u", "a", None)] * 999, BROKEN]),
        ("names.csv", b"UR\0L,TEXT\nu,a\n", [("u", "a", None)]),
        ("none.csv", b"http://a.test/1,\0a\nhttp://a.test/2,b\n", [BROKEN, ("http://a.test/2", "b", None)]),
        ("cell.tsv", b'URL\tTEXT\nu\ta\0\nv\t"b\0"\nw\tc\n', [BROKEN, BROKEN, ("w", "c", None)]),
        ("two.tsv", b"URL\tTEXT\nu\ta\n" + "v\t東\n".encode() + NULS, [("u", "a", None), ("v", "東", None), BROKEN]),
        ("a.jsonl", b'\0{"URL": "u"}\n{"URL": "v", "TEXT": "b"}\n' + NULS, [BROKEN, ("v", "b", None), BROKEN]),
        (
            "a.json",
            NULS + b'[{"URL": "u", "TEXT": "\0"}, {"URL": "v", "TEXT": "b"}]',
            [BROKEN, BROKEN, ("v", "b", None)],
        ),
        ("wide.csv", "URL,TEXT\nu,a\nv,\0\n".encode("utf-16"), [("u", "a", None), BROKEN]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_nul_costs_its_record_and_no_other_wherever_it_stands(read, name, data, expected):
    """A file with many of them was lost whole, and further in they were ordinary text."""
    for pack in ("", ".gz"):
        assert read(name + pack, packed(data, pack)) == (("URL", "TEXT"), expected)


def test_lines_of_urls_with_nuls_are_broken(read):
    assert read("a.txt", b"u\nv\0\n" + NULS + b"\nw\n")[1] == [
        ("u", None),
        (None, "broken_line"),
        (None, "broken_line"),
        ("w", None),
    ]


def test_one_column_of_a_csv_with_nuls(read):
    """It takes whatever is no record for its value."""
    found = read("a.csv", b"URL\nu,1\nv,\0\n\0\n")
    assert found == (("URL",), [("u,1", None), (None, "broken_line"), (None, "broken_line")])


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (NULS, "it begins with NUL bytes alone"),
        (NULS + b"/7.jpg,the rest\nhttp://a.test/8.jpg,b\n", "NUL bytes stand where its columns should be named"),
        (b"\0\1\2\3" * 99 + b"\n", "no table that can be read"),
    ],
)
def test_a_file_whose_nuls_leave_no_table_is_lost_with_that_word(read, data, cause):
    with pytest.raises(BrokenInput, match=cause):
        read("a.csv", data)
