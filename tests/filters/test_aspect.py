"""The bound on long side over short side: either may be the width, empty sides never pass."""

from filters.aspect import Aspect
from tests.support.filter_verdicts import verdicts


def test_three_to_one_passes_and_a_pixel_more_does_not():
    assert Aspect().max == 3.0
    got = verdicts({"use": "aspect"}, width=[300, 301, 100, 100, None], height=[100, 100, 300, 301, 5])
    assert got == [True, False, True, False, None]


def test_an_empty_side_is_never_kept():
    """0 <= 0 * 3 holds, so that the comparison alone would keep a picture without pixels."""
    assert verdicts({"use": "aspect"}, width=[0, 0, 7], height=[0, 7, 0]) == [False, False, False]


def test_a_bound_of_one_keeps_squares_alone():
    assert verdicts({"use": "aspect", "max": 1.0}, width=[64, 64, 65], height=[64, 65, 64]) == [True, False, False]


def test_sides_beyond_32_bits_of_product_are_compared_exactly():
    """2,000,000,000 * 3 does not fit an int32: sides are compared as float64."""
    assert verdicts({"use": "aspect"}, width=[2_000_000_000, 2_000_000_000], height=[700_000_000, 600_000_000]) == [
        True,  # 2.86
        False,  # 3.33
    ]
