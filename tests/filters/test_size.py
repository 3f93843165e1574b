"""Bounds on the sides: the short and the long one, equal ones pass, and a size that is not known stays so."""

import pytest

from filters.base import RuleError, build_filter
from filters.size import Size
from tests.support.filter_verdicts import verdicts


def test_the_default_asks_for_256_pixels_of_the_short_side():
    assert (Size().min_side, Size().max_side) == (256, None)
    got = verdicts({"use": "size"}, width=[256, 255, 4000, None], height=[256, 900, 300, 300])
    assert got == [True, False, True, None]


def test_both_bounds_are_kept_when_equal():
    rule = {"use": "size", "min_side": 10, "max_side": 20}
    assert verdicts(rule, width=[10, 9, 21, None], height=[20, 20, 15, 15]) == [True, False, False, None]
    assert verdicts(rule, width=[20, 20, 21], height=[10, 9, 10]) == [True, False, False]  # either side may be the long


def test_one_side_that_is_missing_leaves_the_verdict_open():
    """A null height could be the short side, however small or large the width is."""
    assert verdicts({"use": "size", "min_side": 10}, width=[5, 500], height=[None, None]) == [None, None]
    # false and null is false in SQL's logic, but Arrow's plain `and_` says null: the rule never guesses
    assert verdicts({"use": "size", "min_side": 10, "max_side": 20}, width=[5], height=[None]) == [None]


@pytest.mark.parametrize("given", ["256", 2.5, True])
def test_a_side_is_a_whole_number(given):
    with pytest.raises(RuleError, match=f"min_side = {given!r}, wanted a whole number; it has min_side: a whole"):
        build_filter({"use": "size", "min_side": given})
