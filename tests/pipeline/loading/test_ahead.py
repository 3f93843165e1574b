"""Items taken ahead in a thread: in their order, errors where they were due, an end when nobody asks."""

import itertools
import threading

import pytest

from pipeline.loading.ahead import ahead


def count_threads():
    return sum(thread.name == "loader" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_items_come_in_their_order_and_end(depth):
    assert list(ahead(iter(range(20)), depth)) == list(range(20))
    assert count_threads() == 0


def test_an_error_comes_where_it_was_due():
    def items():
        yield from (1, 2)
        raise OSError("gone")

    taken = ahead(items(), 3)
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(taken)


def test_so_many_are_taken_ahead_and_closing_ends_the_thread():
    made = []
    taken = ahead((made.append(n) or n for n in itertools.count()), 2)
    assert next(taken) == 0
    assert count_threads() == 1
    taken.close()
    assert count_threads() == 0
    assert len(made) <= 4  # the one that was asked for, two that wait, one in hand
