"""A guard holds what a block raises, whatever its class, and lets go through what is not for it."""

import asyncio
import traceback

import pytest

from manifests.guard import Guard


@pytest.mark.parametrize("error", [ValueError("v"), MemoryError(), AssertionError("a"), StopIteration(3)])
def test_an_exception_of_any_class_is_held(error):
    with Guard() as guard:
        raise error
    assert guard.error is error


def test_a_block_that_goes_well_leaves_no_error_and_may_return():
    def answer():
        with Guard() as guard:
            return 7
        return guard.error

    assert answer() == 7
    with Guard() as guard:
        pass
    assert guard.error is None


def test_classes_that_pass_are_raised_and_their_children_too():
    guard = Guard(passing=(OSError,))
    with pytest.raises(FileNotFoundError), guard:
        raise FileNotFoundError("gone")
    assert guard.error is None
    with guard:
        raise ValueError("held all the same")
    assert str(guard.error) == "held all the same"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_ends_a_process_a_generator_or_a_task_goes_through(kind):
    guard = Guard()
    with pytest.raises(kind), guard:
        raise kind
    assert guard.error is None


def test_a_guard_used_again_forgets_the_error_before():
    guard = Guard()
    with guard:
        raise ValueError
    with guard:
        pass
    assert guard.error is None


def test_the_error_keeps_the_place_where_it_was_raised():
    with Guard() as guard:
        int("x")
    (place,) = traceback.extract_tb(guard.error.__traceback__)
    assert place.line == 'int("x")'
