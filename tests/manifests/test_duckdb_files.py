"""DuckDB reads a store's tables by our own requests."""

import secrets

import duckdb
import pyarrow as pa
import pytest

from manifests import duckdb_files
from manifests.duckdb_files import Known, reading_filesystem
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


def test_an_object_is_asked_for_once_a_query_and_again_once_it_was_written_anew(monkeypatch):
    root = RemotePath.of(f"memory://{secrets.token_hex(4)}/run")
    write_table(root / "a.parquet", pa.table({"x": [1]}))
    asked = []
    stat = RemotePath.stat
    monkeypatch.setattr(RemotePath, "stat", lambda path: asked.append(path.name) or stat(path))
    with duckdb.connect() as connection:
        connection.register_filesystem(reading_filesystem("memory"))
        query = f"SELECT sum(x) FROM {files_sql([root / 'a.parquet'])}"
        assert connection.execute(query).fetchone() == (1,)
        assert asked == ["a.parquet"]
        write_table(root / "a.parquet", pa.table({"x": list(range(10_000))}))
        asked.clear()
        assert connection.execute(query).fetchone() == (49_995_000,)
        assert asked == ["a.parquet"]
    monkeypatch.setattr(duckdb_files, "KNOWN_S", 0.0)
    assert Known("memory").facts(str(root / "a.parquet")).st_size == stat(root / "a.parquet").st_size
