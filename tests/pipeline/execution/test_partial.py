"""pipeline/execution/partial.py: finished rows of a half-done unit are there for the next attempt, and then go."""

import pyarrow as pa
import pytest

from pipeline.execution.partial import Partial, sweep_partial
from pipeline.execution.redact_aside import redact_aside
from tests.support.object_store import in_memory
from tests.support.records import uid


def rows(*numbers):
    return pa.table({"uid": pa.array(map(uid, numbers), pa.binary(16)), "text": [f"picture {n}" for n in numbers]})


@pytest.fixture
def partial(tmp_path):
    partial = Partial(tmp_path, "caption", "llava-00000", "f" * 64)
    partial.add(rows(0, 1))
    partial.add(rows(2))
    return partial


def test_rows_of_every_batch_come_back_and_no_others(partial):
    assert [row["text"] for row in partial.rows([uid(2), uid(0), uid(9)])] == ["picture 0", "picture 2"]
    assert list(Partial(partial.root, "caption", "llava-00000", "0" * 64).rows([uid(0)])) == []
    assert list(Partial(partial.root, "caption", "llava-00001", "f" * 64).rows([uid(0)])) == []


def test_a_table_that_cannot_be_read_costs_its_own_rows(partial):
    (partial.folder / "00000000.parquet").write_bytes(b"half a ta")
    partial.add(rows(3))
    assert [row["text"] for row in partial.rows([uid(n) for n in range(4)])] == ["picture 2", "picture 3"]


def test_a_unit_that_is_done_leaves_nothing(partial):
    other = Partial(partial.root, "caption", "llava-00001", "f" * 64)
    other.add(rows(5))
    partial.drop()
    partial.drop()
    assert list(partial.rows([uid(0)])) == []
    assert [row["text"] for row in other.rows([uid(5)])] == ["picture 5"]


def test_a_step_that_ended_leaves_nothing(partial):
    other = Partial(partial.root, "recaption", "llava-00000", "f" * 64)
    other.add(rows(5))
    sweep_partial(partial.root, "caption")
    assert not partial.folder.parent.exists()
    assert other.folder.is_dir()
    sweep_partial(partial.root, "recaption")
    assert not (partial.root / ".partial").exists()
    other.add(rows(5))
    sweep_partial(partial.root)
    assert not (partial.root / ".partial").exists()


def test_a_removal_lets_go_of_all_of_them(partial):
    redact_aside(partial.root, None)
    assert not (partial.root / ".partial").exists()


def test_a_run_in_a_store_keeps_them_too():
    root = in_memory()
    partial = Partial(root, "caption", "llava-00000", "f" * 64)
    partial.add(rows(0, 1))
    Partial(root, "caption", "llava-00000", "f" * 64).add(rows(2))
    assert [row["text"] for row in partial.rows([uid(2), uid(0)])] == ["picture 0", "picture 2"]
    partial.drop()
    assert list(partial.rows([uid(0)])) == []
    sweep_partial(root)
