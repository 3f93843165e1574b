"""The bound on LAION's aesthetic score: which predictor's column is read, and its own bound each."""

import pyarrow as pa
import pytest

from filters.aesthetic import Aesthetic
from filters.base import RuleError, build_filter
from tests.support.filter_verdicts import verdicts


def test_the_model_names_the_column():
    assert Aesthetic(min=5.0).inputs == ("aesthetic_v2",)
    assert Aesthetic(min=5.0, model="v1").inputs == ("aesthetic_v1",)


def test_equal_is_kept_and_null_or_nan_stays_open():
    scores = [4.75, 4.74, None, float("nan")]
    assert verdicts({"use": "aesthetic", "min": 4.75}, aesthetic_v2=scores) == [True, False, None, None]
    both = verdicts({"use": "aesthetic", "min": 7, "model": "v1"}, aesthetic_v1=[7.0, 6.9], aesthetic_v2=[0.0, 9.0])
    assert both == [True, False]  # v2's column is not looked at


def test_no_rows_no_verdicts():
    batch = pa.RecordBatch.from_pydict({"aesthetic_v2": pa.array([], pa.float32())})
    assert Aesthetic(min=1.0).keep(batch).to_pylist() == []


def test_the_choices_are_listed():
    with pytest.raises(RuleError, match="model = 'v3', wanted 'v1' or 'v2'"):
        build_filter({"use": "aesthetic", "min": 5, "model": "v3"})
    with pytest.raises(RuleError, match=r"needs 'min'; it has min: a finite number \(required\), model: 'v1' or 'v2'"):
        build_filter({"use": "aesthetic"})
