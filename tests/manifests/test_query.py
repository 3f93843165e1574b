"""DuckDB reads a run's tables in the order given, spills inside the run, and fetches no extension."""

import os
import re

import duckdb
import pyarrow as pa
import pytest

from manifests.files import FormatError, write_json, write_table
from manifests.query import MEMORY_LIMIT, batches, connect, files_sql, in_memory
from pipeline.recipes.schema import OutputSection
from tests.support.paths import ROOT


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


@pytest.mark.parametrize(
    ("output", "memory", "threads"),
    [
        (None, "1.8 GiB", len(os.sched_getaffinity(0))),  # 2 GB
        ({"root": "run"}, "1.8 GiB", len(os.sched_getaffinity(0))),  # a recipe of before
        ({"memory_limit": "512MiB", "threads": 3}, "512.0 MiB", 3),
        ("nonsense", "1.8 GiB", len(os.sched_getaffinity(0))),
    ],
    ids=["no recipe", "before", "said", "damaged"],
)
def test_a_query_has_the_limits_of_the_runs_recipe(tmp_path, output, memory, threads):
    if output is not None:
        write_json(tmp_path / "manifests" / "recipe.json", {"recipe": {"output": output}}, sealed=True)
    with connect(tmp_path) as connection:
        found = connection.execute("SELECT current_setting('memory_limit'), current_setting('threads')").fetchone()
    assert found == (memory, threads)


def test_the_recipe_and_the_query_have_one_default():
    assert OutputSection().memory_limit == MEMORY_LIMIT == "2GB"


def test_what_needs_more_memory_says_which_key_gives_it(tmp_path):
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": {"output": {"memory_limit": "1MB"}}}, sealed=True)
    with (
        pytest.raises(duckdb.OutOfMemoryException, match=r"output\.memory_limit = 1MB"),
        connect(tmp_path) as connection,
    ):
        connection.execute("SELECT list(range) FROM range(2_000_000)").fetchall()


def test_a_sort_that_does_not_fit_lies_in_the_run_folder_meanwhile(tmp_path):
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": {"output": {"memory_limit": "40MB"}}}, sealed=True)
    with connect(tmp_path) as connection:
        rows = connection.execute("SELECT hash(range) AS h, range AS n FROM range(2_000_000) ORDER BY h")
        first = [rows.fetchone() for _ in range(1000)]
        assert list((tmp_path / ".tmp-duckdb").iterdir()) != []
        assert (
            first
            == connection.execute(
                "SELECT hash(range) AS h, range FROM range(2_000_000) ORDER BY h LIMIT 1000"
            ).fetchall()
        )


def test_files_are_taken_a_few_at_a_time():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches([], 2)) == []


def test_nothing_of_the_files_that_were_read_is_held(tmp_path):
    """DuckDB's own cache of files took 700 MB over the tables of 2,700 shards of 100 rows each."""
    write_table(tmp_path / "a.parquet", pa.table({"n": list(range(50_000))}))
    with connect(tmp_path) as connection:
        assert connection.execute(f"SELECT sum(n) FROM {files_sql([tmp_path / 'a.parquet'])}").fetchone() == (
            1249975000,
        )
        held = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'EXTERNAL_FILE_CACHE'"
        assert connection.execute(held).fetchone() == (0,)


def test_a_connection_for_tables_in_memory_has_its_limits_and_whole_numbers():
    names = ["memory_limit", "threads", "autoinstall_known_extensions"]
    with in_memory("64MiB") as connection:
        assert [connection.execute("SELECT current_setting(?)", [name]).fetchone()[0] for name in names] == [
            "64.0 MiB",
            1,
            False,
        ]
        found = connection.execute("SELECT md5_number('a') AS n").to_arrow_table()["n"].chunk(0).storage
    assert found.to_pylist() == [bytes.fromhex("0cc175b9c0f1b6a831c399e269772661")]  # RFC 1321


def test_no_other_module_opens_duckdb():
    """Whatever does would take 80 % of the machine's memory, and extensions from the network."""
    packages = ("manifests", "filters", "captioning", "tokenize_shards", "pipeline")
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    opens = [path for path in files if re.search(r"duckdb\.(connect|sql|query|execute)\(", path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in opens] == ["manifests/query.py"]
