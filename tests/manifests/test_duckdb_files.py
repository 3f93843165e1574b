"""DuckDB reads a store's tables by our own requests."""

import secrets

import duckdb
import pyarrow as pa
import pytest

from manifests.duckdb_files import reading_filesystem
from manifests.files import write_bytes, write_table
from manifests.query import files_sql
from manifests.remote_path import RemotePath


def test_many_tables_and_one_that_is_none():
    root = RemotePath.of(f"memory://{secrets.token_hex(4)}/run")
    for number in range(4):
        write_table(root / f"{number}.parquet", pa.table({"x": pa.array(range(number), pa.int64())}))
    write_bytes(root / "bad.parquet", b"no table")
    with duckdb.connect() as connection:
        connection.register_filesystem(reading_filesystem("memory"))
        tables = files_sql(sorted(root.glob("?.parquet")))
        found = connection.execute(f"SELECT sum(x), count(*) FROM {tables}").fetchone()
        assert found == (0 + 1 + 3, 6)
        with pytest.raises(duckdb.Error, match="bad"):
            connection.execute(f"SELECT * FROM {files_sql([root / 'bad.parquet'])}")
        with pytest.raises(duckdb.Error):
            connection.execute(f"SELECT * FROM {files_sql([root / 'none.parquet'])}")
