"""Counts of verdicts by hand, and rows whose fates hang on others."""

import numpy as np
import pyarrow as pa
import pytest

from filters.survivors import Candidates, Evaluated
from filters.verdicts import PASSES, Verdicts
from pipeline.analysis import tally
from pipeline.analysis.replan import LEAVES, Groups, Plan
from pipeline.analysis.tally import OPEN, Late, Tally
from tests.support.judged_rows import uid

REASONS = ("near_duplicate", "exact_duplicate", "size")
NOTHING = Plan(*(np.empty(shape, np.int64) for shape in ((0, 2), 0, 0, 0)))


def numbers(*values, kind=np.int16):
    return np.array(values, kind)


def evaluated(rows, code, passed, rivals=(), cluster=9):
    """Return rows and their verdicts; those that are rivals have one cluster, the larger pixels the better."""
    table = {
        "cluster": pa.array([uid(cluster)] * len(rivals), pa.binary(16)),
        "uid": pa.array([uid(row) for row in rivals], pa.binary(16)),
        "width": pa.array([100 + row for row in rivals], pa.int32()),
        "height": pa.array([100] * len(rivals), pa.int32()),
    }
    candidates = Candidates.of(pa.table(table), np.zeros(len(rivals), np.int16))
    places = np.flatnonzero(np.isin(rows, rivals))
    return np.array(rows), Evaluated(Verdicts(numbers(*code), numbers(*passed, kind=np.uint64)), places, candidates)


def test_rows_are_counted_by_reason_and_by_tier_and_taken_out_again():
    made = Tally(REASONS, ("pretrain", "finetune"))
    made.count(numbers(PASSES, PASSES, 2, 2, 0, OPEN), numbers(1, 3, 0, 2, 0, 0, kind=np.uint64))
    assert (made.kept, made.dropped) == (2, {"near_duplicate": 1, "size": 2})
    assert made.tiers == {"pretrain": 2, "finetune": 1}  # what does not pass is in no tier
    made.count(numbers(PASSES, 2), numbers(2, 0, kind=np.uint64), sign=-1)
    assert (made.kept, made.dropped, made.tiers["finetune"]) == (1, {"near_duplicate": 1, "size": 1}, 0)


def test_of_twins_in_two_shards_one_survives():
    made, late = Tally(REASONS, ("pretrain",)), Late.of(REASONS, NOTHING, Groups())
    for base in (numbers(PASSES, 2), numbers(PASSES, 2)):
        made.count(base)
    late.take(*evaluated([0, 1], [PASSES, PASSES], [1, 1], rivals=[0]), numbers(PASSES, 2), made)
    late.take(*evaluated([2, 3], [PASSES, 2], [1, 0], rivals=[2]), numbers(PASSES, 2), made)
    late.settle()
    assert (late.row.tolist(), late.code.tolist()) == ([0, 2], [0, PASSES])  # the second is 2 pixels wider
    made.count(late.code, late.passed)
    assert (made.kept, made.dropped, made.tiers) == (2, {"near_duplicate": 1, "size": 1}, {"pretrain": 2})


def test_rows_of_one_uid_take_the_fate_of_the_one_that_stands_for_them():
    """Row 0 was fetched and leaves; its copy, row 1, stands for it; row 2 is a copy; row 3 comes in, never fetched."""
    plan = Plan(np.array([[1, 0]]), np.array([2]), np.array([3]), np.empty(0, np.int64))
    groups = Groups()
    groups.add(0, pa.array([uid(1)], pa.binary(16)), numbers(LEAVES, kind=np.int8), np.array([False]), numbers(2))
    made, late = Tally(REASONS, ("pretrain",)), Late.of(REASONS, plan, groups)
    made.count(numbers(PASSES, 1, 1, 2))
    late.find(np.array([1, 2, 3]), numbers(1, 1, 2), made)
    late.take(*evaluated([0], [PASSES], [1]), numbers(PASSES), made)
    assert made.by_code.sum() == 0
    late.settle()
    assert late.compose(plan, groups) == {"size": 1}
    assert late.code.tolist() == [2, PASSES, 1, OPEN]
    made.count(late.code, late.passed)
    assert (made.kept, made.dropped, made.tiers) == (1, {"exact_duplicate": 1, "size": 1}, {"pretrain": 1})


def test_a_row_that_is_judged_anew_has_its_last_verdict():
    plan = Plan(np.array([[1, 0]]), *(np.empty(0, np.int64),) * 3, other=np.array([[1, 0]]))
    made, late = Tally(REASONS, ("pretrain",)), Late.of(REASONS, plan, Groups())
    made.count(numbers(2, 1))
    late.find(np.array([0, 1]), numbers(2, 1), made)
    late.take(*evaluated([0], [PASSES], [1]), None, made)
    late.settle()
    assert (late.row.tolist(), late.code.tolist()) == ([0, 1], [PASSES, 1])


@pytest.mark.parametrize(("most", "said"), [(2, []), (1, ["1 rows with twins, copies and rows that change"])])
def test_memory_that_grows_is_said(monkeypatch, most, said):
    monkeypatch.setattr(tally, "MOST_HELD", most)
    late = Late(REASONS, np.array([4]), row=np.array([4]))
    assert [note[: len(said[0])] for note in late.note()] == said
