"""Rows move between groupings by part: legs, what is made again after a kill, and nothing where all is done."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.layout import SCRATCH
from pipeline.execution.shuffle import FEW_ROWS, drop_scratch, here, parts_for
from pipeline.execution.slices import write_slices
from pipeline.execution.step import Unit
from tests.support.shuffles import SPREAD, ByNumber, Counts, Falling
from tests.support.stage_steps import recipe_at


@pytest.fixture
def step(tmp_path):
    (tmp_path / SPREAD).write_text("2")
    return Counts(recipe_at(tmp_path), tmp_path)


def told(root) -> list[dict[str, list[int]]]:
    return [pq.read_table(path).to_pydict() for path in sorted((root / "counts").glob("*.parquet"))]


def test_parts_hold_32_MB_each():
    wide = pa.schema({"uid": pa.binary(16), "place": pa.uint64()})  # 24 bytes a row
    assert [parts_for(rows, wide, 1) for rows in (0, 1, 1_333_333, 1_333_334, 10_000_000)] == [1, 1, 1, 2, 8]
    assert [parts_for(10_000_000, wide, 1, most) for most in (8_000_000, 64_000_000)] == [30, 8]


def test_there_are_some_parts_unless_they_would_be_small():
    wide = pa.schema({"uid": pa.binary(16), "place": pa.uint64()})
    assert [parts_for(rows, wide) for rows in (0, 166_666, 166_667, 10_000_000, 11_000_000)] == [1, 1, 2, 8, 9]


def test_a_shuffle_tells_every_file_what_all_hold(step, tmp_path):
    """5 stands twice, 7 three times, 9 once; the second file is empty."""
    step.make()
    assert told(tmp_path) == [
        {"number": [5, 7], "times": [2, 3]},
        {"number": [], "times": []},
        {"number": [7, 9], "times": [3, 1]},
    ]
    assert not (tmp_path / SCRATCH).exists()


def test_the_number_of_parts_shows_in_no_output(step, tmp_path):
    bytes_of = []
    for parts in ("1", "2", "7"):
        (tmp_path / SPREAD).write_text(parts)
        for path in (tmp_path / "counts").glob("*"):
            path.unlink()
        step.make()
        bytes_of.append([path.read_bytes() for path in sorted((tmp_path / "counts").glob("*"))])
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


@pytest.mark.parametrize(
    ("rows", "small"),
    [
        ([FEW_ROWS], True),  # one unit keeps one worker busy: the driver is as good
        ([FEW_ROWS // 2, FEW_ROWS // 2 - 1], True),
        ([FEW_ROWS // 2, FEW_ROWS // 2], False),
    ],
)
def test_little_work_is_done_in_the_driver(step, rows, small):
    assert step.is_small([Unit(str(number), {"rows": count}, "") for number, count in enumerate(rows)]) is small


def test_where_all_is_done_nothing_is_split(step):
    did = []

    def do(leg, units):
        did.append((leg.name, len(units)))
        here(leg, units)

    step.make(do)
    step.make(do)
    assert did == [("counts_split", 3), ("counts_reduce", 2), ("counts", 3)]


def test_a_run_that_fell_over_goes_on_where_it_was(step, tmp_path):
    did = []

    def do(leg, units):
        did.append((leg.name, len(units)))
        here(leg, units)

    falling = Falling(step.recipe, tmp_path)
    with pytest.raises(RuntimeError, match="fell over"):
        falling.make(do)
    assert (tmp_path / SCRATCH / "counts").is_dir()
    falling.make(do)
    assert did == [("counts_split", 3), ("counts_reduce", 2), ("counts", 3), ("counts", 2)]
    assert len(told(tmp_path)) == 3
    assert not (tmp_path / SCRATCH).exists()


def test_slices_of_a_unit_that_is_planned_no_more_are_not_read(step, tmp_path):
    """A kill has left them without a record."""
    with open(tmp_path / "stray.slices", "wb") as file:
        rows = pa.record_batch([[5] * 9, [0] * 9], schema=ByNumber.carried)
        write_slices(file, 2, ByNumber.carried, iter([(np.array([1] * 9), rows)]))
    folder = tmp_path / SCRATCH / "counts" / "counts_split"
    folder.mkdir(parents=True)
    (tmp_path / "stray.slices").rename(folder / "00009.slices")
    step.make()
    assert told(tmp_path)[0] == {"number": [5, 7], "times": [2, 3]}


def test_slices_for_another_number_of_parts_are_made_anew(step, tmp_path):
    did = []

    def do(leg, units):
        did.append((leg.name, len(units)))
        here(leg, units)

    with pytest.raises(RuntimeError, match="fell over"):
        Falling(step.recipe, tmp_path).make(do)
    (tmp_path / SPREAD).write_text("1")
    step.make(do)
    assert did[3:] == [("counts_split", 3), ("counts_reduce", 1), ("counts", 2)]
    assert told(tmp_path)[0] == {"number": [5, 7], "times": [2, 3]}


def test_scratch_can_be_dropped_at_any_time(step, tmp_path):
    with pytest.raises(RuntimeError, match="fell over"):
        Falling(step.recipe, tmp_path).make()
    drop_scratch(tmp_path)
    assert not (tmp_path / SCRATCH).exists()
    step.make()
    assert len(told(tmp_path)) == 3
