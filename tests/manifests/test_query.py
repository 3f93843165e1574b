"""DuckDB reads a run's tables in the order given, spills inside the run, and fetches no extension."""

import duckdb
import pyarrow as pa
import pytest

from manifests.files import FormatError, write_table
from manifests.query import connect, files_sql


def test_settings_of_a_connection(tmp_path):
    names = ["autoinstall_known_extensions", "autoload_known_extensions", "preserve_insertion_order", "temp_directory"]
    with connect(tmp_path) as connection:
        values = [connection.execute("SELECT current_setting(?)", [name]).fetchone()[0] for name in names]
    assert values == [False, False, True, str(tmp_path / ".tmp-duckdb")]


def test_a_connection_is_closed_behind_its_block(tmp_path):
    with connect(tmp_path) as connection:
        assert connection.execute("SELECT 2 + 3").fetchall() == [(5,)]
    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")


def test_files_are_read_in_the_order_given_with_their_row_numbers(tmp_path):
    folder = tmp_path / "it's a=1"
    for name, numbers in (("b", [7, 8]), ("a", [9])):
        write_table(folder / f"{name}.parquet", pa.table({"n": numbers}))
    sql = files_sql([folder / "b.parquet", folder / "a.parquet"])
    assert sql.startswith(f"read_parquet(['{tmp_path}/it''s a=1/b.parquet', '{tmp_path}/it''s a=1/a.parquet'],")
    with connect(tmp_path) as connection:
        rows = connection.execute(f"SELECT n, file_row_number, filename FROM {sql}").fetchall()
        columns = [column[0] for column in connection.execute(f"SELECT * FROM {sql}").description]
    b, a = str(folder / "b.parquet"), str(folder / "a.parquet")
    assert rows == [(7, 0, b), (8, 1, b), (9, 0, a)]
    assert "a" not in columns  # a folder called it's a=1 gives no column


def test_a_table_that_is_none_names_the_run(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing of one")
    with pytest.raises(FormatError, match="a stored table cannot be read") as raised, connect(tmp_path) as connection:
        connection.execute(f"SELECT * FROM {files_sql([tmp_path / 't.parquet'])}").fetchall()
    assert str(raised.value).startswith(f"{tmp_path}: ")
    assert "t.parquet" in str(raised.value)


def test_a_defect_of_the_query_goes_through(tmp_path):
    with pytest.raises(duckdb.ParserException), connect(tmp_path) as connection:
        connection.execute("SELECT FROM WHERE")
