"""A tar and its table: what the one holds and the other does not name has a row all the same."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.inputs.beside import NOT_IN_TABLE, rows_beside
from pipeline.inputs.parquet import RowGroups
from tests.support.tar_files import cut, write_members

MAPPING = {"url": "url", "text": "caption"}


@pytest.fixture
def beside(tmp_path):
    """Return a function: keys of the table's rows, with "-" those of failed downloads; members -> (url, text,
    fault)."""

    def read(keys, *members, column="key"):
        if members:
            write_members(tmp_path / "0.tar", *members)
        status = ["failed_to_download" if (key or "").startswith("-") else "success" for key in keys]
        names = pa.array([key and key.lstrip("-") for key in keys], pa.string())
        pq.write_table(pa.table({column: names, "status": status}), tmp_path / "0.parquet", row_group_size=2)
        with RowGroups(str(tmp_path / "0.parquet")) as table:
            rows = rows_beside(str(tmp_path / "0.tar"), "in/0.tar", table, MAPPING)
        return [(row.get("url"), row.get("text"), row["fault"]) for row in rows]

    return read


@pytest.mark.parametrize(
    ("keys", "members", "expected"),
    [
        (["0", "1", "2"], ["0.jpg", "0.txt", "1.jpg", "2.webp"], []),
        (["0", "-1"], ["0.jpg", "0.seg.png", "0.txt"], []),
        (["0"], ["0.jpg", "1.jpg", "1.txt", "2.txt"], [("1.jpg", "of 1.txt"), ("2.txt", "of 2.txt")]),
        (["0"], ["1.jpg", "0.jpg", "2.jpg", "1.txt"], [("1.jpg", "of 1.txt"), ("2.jpg", None)]),  # they stand apart
        (["0"], ["0.jpg", "0.jpg"], [("0.jpg", None)]),  # a second one of the key
        (["v.1"], ["v.1.jpg", "v.2.jpg"], [("v.2.jpg", None)]),
        ([None, ""], ["0.jpg"], [("0.jpg", None)]),
        ([], ["0.jpg"], [("0.jpg", None)]),
        (["0"], [("0.jpg", b"2"), ("1.jpg", b"2")], [("1.jpg", None)]),  # links
        (["0"], ["__note__.json"], []),
        (["0"], ["0.jpg", "._0.jpg"], [("._0.jpg", None)]),  # not what macOS writes
        (["0"], ["0.jpeg", "0.png", "0.txt", "0.webp"], [("0.png", None), ("0.webp", None)]),  # further pictures
        (["0"], [("0.png", b"2"), "0.jpg"], []),  # a link and the picture
    ],
)
def test_what_no_row_of_the_table_names(beside, keys, members, expected):
    assert beside(keys, *members) == [(f"in/0.tar/{name}", text, NOT_IN_TABLE) for name, text in expected]


def test_a_table_without_keys_names_no_sample(beside):
    assert beside(["0"], "0.jpg", column="other") == [("in/0.tar/0.jpg", None, NOT_IN_TABLE)]


def test_damage_is_said_by_a_row_where_none_of_the_table_says_it(beside, tmp_path):
    """A member is 1024 bytes; `1` of the table is a failed download, whose picture nobody waits for."""
    beside(["0"], "0.jpg", "1.jpg", "2.jpg")
    cut(tmp_path / "0.tar", 2048 + 100)
    assert beside(["0", "1"]) == [(None, None, "broken_tar")]
    assert beside(["0", "-9"]) == [(None, None, "broken_tar")]  # of 1 more may have come
    assert beside(["0", "1", "2"]) == []


def test_without_a_tar_or_with_none_that_can_be_read_the_tables_rows_say_so(beside, tmp_path):
    assert beside(["0"]) == []
    (tmp_path / "0.tar").write_bytes(b"no tar" * 200)
    assert beside(["0"]) == []


def test_where_keys_cannot_be_read_nothing_is_said_twice(beside, tmp_path):
    beside(["0", "1", "2"], "0.jpg", "3.jpg")
    with RowGroups(str(tmp_path / "0.parquet")) as table:
        start = table._file.metadata.row_group(1).column(0).data_page_offset
    data = bytearray((tmp_path / "0.parquet").read_bytes())
    data[start : start + 8] = b"\xff" * 8
    (tmp_path / "0.parquet").write_bytes(data)
    with RowGroups(str(tmp_path / "0.parquet")) as table:
        assert rows_beside(str(tmp_path / "0.tar"), "0.tar", table, MAPPING) == []
