"""Rules: how a recipe's table becomes a filter, errors that list the choices, and bounds in a column's precision."""

from dataclasses import FrozenInstanceError, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import filters.base
from filters.base import Rule, RuleError, at_least, at_most, build_filter, known_filters, register
from tests.support.filter_verdicts import verdicts


def test_every_filter_of_the_design_is_there():
    assert known_filters() == ("aesthetic", "aspect", "language", "nsfw", "similarity", "size", "text", "watermark")


def test_a_threshold_is_compared_in_the_column_s_precision():
    assert verdicts({"use": "similarity", "min": 0.3}, similarity=[0.3]) == [True]
    assert verdicts({"use": "similarity", "min": 0.7}, similarity=[0.7]) == [True]  # float32(0.7) is below 0.7
    assert verdicts({"use": "watermark", "max": 0.1}, pwatermark=[0.1]) == [True]  # float32(0.1) is above 0.1


def test_bounds_of_any_column_of_numbers():
    """3 of an int64 column is at least 2.5 and not at most 2.5: whole numbers are compared as float64."""
    batch = pa.RecordBatch.from_pydict(
        {"whole": pa.array([2, 3, None]), "double": [0.3, float("nan"), None], "single": pa.array([0.3] * 3, "float32")}
    )
    assert at_least(batch, "whole", 2.5).to_pylist() == [False, True, None]
    assert at_most(batch, "whole", 2.5).to_pylist() == [True, False, None]
    assert at_least(batch, "double", 0.3).to_pylist() == [True, None, None]  # NaN is no number to compare
    assert at_most(batch, "double", float("-inf")).to_pylist() == [False, None, None]
    assert at_least(batch, "single", 0.3).to_pylist() == at_most(batch, "single", 0.3).to_pylist() == [True] * 3


def test_a_whole_number_in_a_recipe_is_a_number():
    built = build_filter({"use": "aspect", "max": 2})
    assert (built.max, type(built.max)) == (2.0, float)


def test_a_rule_records_its_own_name():
    rule = build_filter({"use": "size", "name": "too_small", "min_side": 512})
    assert (rule.name, build_filter({"use": "size"}).name) == ("too_small", "size")
    with pytest.raises(FrozenInstanceError):
        rule.min_side = 3


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"use": "sizes"}, "no filter 'sizes'; known filters: aesthetic, aspect"),
        ({"use": ["size"]}, "no filter"),
        ({"min_side": 3}, "has no `use`"),
        (
            {"use": "size", "minside": 3},
            "no threshold 'minside'; it has min_side: a whole number = 256, max_side: a whole number or none = none",
        ),
        ({"use": "size", "name": 3}, "name = 3, wanted a text"),
        ({"use": "aspect", "max": "3"}, "max = '3', wanted a finite number"),
        ({"use": "aspect", "max": False}, "max = False, wanted a finite number"),
    ],
)
def test_a_faulty_rule_raises_before_any_work(rule, says):
    with pytest.raises(RuleError, match=says):
        build_filter(rule)


def test_a_new_filter_is_a_registered_dataclass(monkeypatch):
    monkeypatch.setattr(filters.base, "FILTERS", dict(filters.base.FILTERS))

    @register("square")
    @dataclass(frozen=True, kw_only=True)
    class Square(Rule):
        inputs = ("width", "height")

        slack: int = 0

        def keep(self, batch):
            return pc.less_equal(pc.abs(pc.subtract(batch.column("width"), batch.column("height"))), self.slack)

    assert "square" in known_filters()
    assert verdicts({"use": "square", "slack": 1}, width=[5, 5, None], height=[6, 7, 5]) == [True, False, None]
    with pytest.raises(ValueError, match="two filters are called 'size'"):
        register("size")(Square)
    with pytest.raises(TypeError, match="put @dataclass"):
        register("plain")(type("Plain", (), {}))
    assert register("square")(Square) is Square  # a module that is read twice enters its filters again
