"""Rows are cut by part, and each slice of a file is read as it was written."""

import io

import numpy as np
import pyarrow as pa
import pytest

from manifests.files import FormatError
from pipeline.execution.slices import HELD_BYTES, by_part, read_slice, together, write_slices

ROWS = pa.schema({"n": pa.int32()})


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int32())], schema=ROWS)


def test_rows_are_cut_by_part_and_stay_in_order():
    cut = list(by_part(np.array([2, 0, 2, 0]), batch(1, 2, 3, 4), 4))
    assert [(part, rows["n"].to_pylist()) for part, rows in cut] == [(0, [2, 4]), (2, [1, 3])]
    assert list(by_part(np.array([], np.int64), batch(), 3)) == []
    with pytest.raises(AssertionError, match=r"a row of part 4: wanted 0 … 3"):
        list(by_part(np.array([4]), batch(1), 4))


def test_slices_are_read_as_they_were_written(tmp_path):
    pieces = [(np.array([0, 2]), batch(1, 2)), (np.array([2, 2]), batch(3, 4)), (np.array([0]), batch(5))]
    for held in (HELD_BYTES, 0):  # one run of slices, and one for each piece
        with open(tmp_path / "a.slices", "wb") as file:
            assert write_slices(file, 3, ROWS, iter(pieces), held) == 5
        slices = [list(read_slice(tmp_path / "a.slices", part, ROWS)) for part in range(3)]
        assert [len(batches) for batches in slices] == ([1, 0, 1] if held else [2, 0, 2])
        rows = [pa.Table.from_batches(batches, ROWS)["n"].to_pylist() for batches in slices]
        assert rows == [[1, 5], [], [2, 3, 4]]


def test_a_file_without_rows_has_empty_slices(tmp_path):
    with open(tmp_path / "a.slices", "wb") as file:
        assert write_slices(file, 2, ROWS, iter([])) == 0
    assert [list(read_slice(tmp_path / "a.slices", part, ROWS)) for part in range(2)] == [[], []]


@pytest.mark.parametrize("damage", ["cut", "another", "no_such_part"])
def test_what_holds_no_such_slice_is_named(tmp_path, damage):
    path, file = tmp_path / "a.slices", io.BytesIO()
    write_slices(file, 2, ROWS, iter([(np.array([0, 1]), batch(1, 2))]))
    whole = file.getvalue()
    path.write_bytes({"cut": whole[:-1], "another": b"no", "no_such_part": whole}[damage])
    with pytest.raises(FormatError, match=r"a\.slices"):
        list(read_slice(path, 2 if damage == "no_such_part" else 1, ROWS))


@pytest.mark.parametrize(("held", "sizes"), [(HELD_BYTES, [5]), (8, [4, 1]), (0, [2, 2, 1])])
def test_pieces_are_put_together_until_they_hold_some_bytes(held, sizes):
    """4 bytes a row; a piece without rows is in none."""
    pieces = [(np.array([0, 2]), batch(1, 2)), (np.array([2, 2]), batch(3, 4)), (np.array([0]), batch(5))]
    found = list(together([*pieces, (np.array([], np.int64), batch())], ROWS, held))
    assert [rows.num_rows for _, rows in found] == sizes
    assert np.concatenate([numbers for numbers, _ in found]).tolist() == [0, 2, 2, 2, 0]
    assert [number for _, rows in found for number in rows["n"].to_pylist()] == [1, 2, 3, 4, 5]
