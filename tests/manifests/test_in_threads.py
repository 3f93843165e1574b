"""Many files are read in order, on a disk as on a store; what fails is raised in its turn."""

import threading

import pytest

from manifests.in_threads import AHEAD, each


def test_results_come_in_order_and_no_more_is_begun_than_is_to_wait(anywhere):
    begun = []

    def do(number):
        begun.append(number)
        return number * number

    results = each(anywhere, do, range(500))
    assert [next(results) for _ in range(10)] == [number * number for number in range(10)]
    assert len(begun) <= 10 + AHEAD
    assert list(results) == [number * number for number in range(10, 500)]


def test_a_failure_is_raised_in_its_turn_and_ends_the_rest(anywhere):
    threads = threading.active_count()
    taken = []
    with pytest.raises(KeyError, match="7"):
        taken.extend(each(anywhere, {number: number for number in range(7)}.__getitem__, range(100)))
    assert len(taken) <= 7
    assert threading.active_count() == threads
