"""Pairs are joined to components piece by piece, and each key has its smallest uid."""

import numpy as np
import pytest

from filters.forest import (
    Forest,
    distinct_pairs,
    find,
    in_sample,
    large_star,
    sample_bits,
    small_star,
    smallest_uids,
)


def test_the_smallest_uid_of_a_key_is_that_of_both_halves():
    keys, high, low = (np.array(values, np.uint64) for values in ([7, 3, 7, 7, 3], [5, 1, 4, 4, 1], [0, 9, 8, 2, 9]))
    assert [column.tolist() for column in smallest_uids(keys, high, low)] == [[3, 7], [1, 4], [9, 2]]
    assert [len(column) for column in smallest_uids(keys[:0], high[:0], low[:0])] == [0, 0, 0]


def test_pairs_are_thinned_when_there_are_many():
    forest = Forest(2)
    for one, other in ((1, 2), (2, 3), (1, 3), (8, 9)):
        forest.add(np.array([one], np.uint64), np.array([other], np.uint64))
    assert [side.tolist() for side in forest.thinned()] == [[1, 1, 8], [2, 3, 9]]


@pytest.mark.parametrize(("rows", "bits"), [(0, 0), (131_071, 0), (131_072, 1), (262_144, 2), (132_000_000, 10)])
def test_a_sample_holds_at_most_131072_of_the_rows(rows, bits):
    assert sample_bits(rows, 1 << 17) == bits
    hashes = np.arange(4096, dtype=np.uint64)
    assert abs(in_sample(hashes, bits).sum() - 4096 / 2**bits) < 3


def test_numbers_are_found_where_they_stand():
    known, asked = np.array([2, 5, 9], np.uint64), np.array([9, 1, 5, 10, 2], np.uint64)
    assert find(known, asked).tolist() == [2, -1, 1, -1, 0]
    assert find(known[:0], asked).tolist() == [-1] * 5


def pairs(*rows):
    return tuple(np.array(side, np.uint64) for side in zip(*rows, strict=True))


def test_larger_neighbours_hang_on_the_smallest_and_smaller_ones_too():
    """A path 1 - 4 - 2 - 3: 4 has 1 and 2, so that 2 hangs on 1; of 2 the larger ones, 3 and 4, hang on 2."""
    path = [(1, 4), (4, 1), (4, 2), (2, 4), (2, 3), (3, 2)]
    assert sorted(zip(*(side.tolist() for side in large_star(*pairs(*sorted(path)))), strict=True)) == [
        (3, 2),
        (4, 1),
        (4, 2),
    ]
    star = small_star(*pairs((3, 2), (4, 1), (4, 2)))
    assert sorted(zip(*(side.tolist() for side in star), strict=True)) == [(2, 1), (3, 2), (4, 1)]
    nothing = np.zeros(0, np.uint64)
    assert [len(side) for side in (*large_star(nothing, nothing), *small_star(nothing, nothing))] == [0] * 4


def test_a_pair_that_comes_twice_is_one():
    assert [side.tolist() for side in distinct_pairs(*pairs((2, 1), (1, 9), (2, 1)))] == [[1, 2], [9, 1]]
