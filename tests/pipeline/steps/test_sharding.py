"""Streams of rows are cut into shards by count, by bytes and where the input's batch changes; a range is read without
the rest."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.steps.sharding import cut_shards, in_batches, read_range, runs, without_gaps


def batches(*lists, batch=0):
    """Return record batches whose column `n` holds these numbers and whose column `batch` the one number."""
    return [pa.RecordBatch.from_pydict({"n": list(numbers), "batch": [batch] * len(numbers)}) for numbers in lists]


def numbers(tables):
    return [table["n"].to_pylist() for table in tables]


def weighed(*lists):
    """Return a reader of batches whose column `bytes` holds these weights, `n` counting the rows."""
    schema = pa.schema({"n": pa.int64(), "bytes": pa.int64()})
    count, made = 0, []
    for weights in lists:
        rows = {"n": range(count, count + len(weights)), "bytes": list(weights)}
        made.append(pa.RecordBatch.from_pydict({"n": list(rows["n"]), "bytes": rows["bytes"]}, schema=schema))
        count += len(weights)
    return pa.RecordBatchReader.from_batches(schema, made)


def test_rows_that_keep_a_place_are_dropped():
    table = pa.table({"n": [0, 1, 2], "gone": [False, True, False]})
    assert without_gaps(table)["n"].to_pylist() == [0, 2]
    assert without_gaps(table.slice(0, 1))["n"].to_pylist() == [0]
    assert without_gaps(table.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([], []),
        ([[5, 5, 5]], [[0, 1], [2]]),  # 15 bytes are more than 12
        ([[6, 6]], [[0, 1]]),  # 12 are not
        ([[1, 1, 1, 1]], [[0, 1, 2], [3]]),  # three rows are the most
        ([[5, 20, 1]], [[0], [1], [2]]),  # one row of 20 bytes stands alone
        ([[5], [5], [5, 1]], [[0, 1], [2, 3]]),  # cuts do not depend on the reader's batches
        ([[20], [], [20, 0, 12], [0]], [[0], [1], [2, 3, 4]]),  # nor on where one too large stands
        ([[1, 1, 1], [1]], [[0, 1, 2], [3]]),
    ],
)
def test_shards_of_three_rows_and_twelve_bytes_at_most(lists, expected):
    assert numbers(cut_shards(weighed(*lists), 3, 12)) == expected


def test_a_range_is_read_by_the_row_groups_that_may_hold_it(tmp_path):
    table = pa.table({"draw": [0, 1, 2, 3, 4, 5, 6], "text": list("abcdefg")})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    assert read_range(tmp_path / "x.parquet", "draw", 3, 4, ["text"]).to_pydict() == {"text": list("cdef")}
    assert read_range(tmp_path / "x.parquet", "draw", 7, 9).num_rows == 0
    assert read_range(tmp_path / "x.parquet", "draw", 6, 6)["draw"].to_pylist() == [6]


def test_row_groups_without_statistics_are_read(tmp_path):
    pq.write_table(pa.table({"draw": [0, 1, 2]}), tmp_path / "x.parquet", write_statistics=False, row_group_size=1)
    assert read_range(tmp_path / "x.parquet", "draw", 1, 1)["draw"].to_pylist() == [0, 1, 2]


def test_cuts_by_running_sums_are_those_of_one_row_after_another():
    lists = [[(7 * n) % 11 for n in range(k, k + 40)] for k in range(0, 200, 40)]
    expected, open_, size = [], [], 0
    for number, weight in enumerate(weight for some in lists for weight in some):
        if open_ and (len(open_) == 5 or size + weight > 23):
            expected.append(open_)
            open_, size = [], 0
        open_.append(number)
        size += weight
    assert numbers(cut_shards(weighed(*lists), 5, 23)) == [*expected, open_]


def test_tables_become_batches_of_exactly_the_rows_asked_for():
    tables = [pa.table({"n": list(some)}) for some in ([0, 1], [], [2, 3, 4, 5, 6], [7])]
    assert numbers(in_batches(tables, 3)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert numbers(in_batches(tables, 8)) == [list(range(8))]
    assert list(in_batches([], 3)) == []


def test_runs_hold_at_most_so_much_and_one_that_is_larger_stands_alone():
    assert list(runs([2, 3, 1, 9, 4], int, 5)) == [[2, 3], [1], [9], [4]]
    assert list(runs([9, 1, 4], int, 5)) == [[9], [1, 4]]
    assert list(runs([], int, 5)) == []
