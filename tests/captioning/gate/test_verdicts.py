"""What follows the flags of one or two attempts: the words that count, whose they are, and why there are none."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from captioning.gate.config import ACTIONS, FLAGS, GateConfig
from captioning.gate.verdicts import FAILED, NONE, NOT_ASKED, ORIGINS, SAID, settle, wants_retry

ACTS = {"empty": "keep", "too_short": "retry", "refusal": "fall_back", "repeated": "drop_caption"}


def table(*rows):
    return {flag: np.array([flag in row for row in rows]) for flag in FLAGS}


def settled(first, second=(), there=(SAID, NOT_ASKED), hand=(True, True), **gate):
    """Return (action, origin, second counts, cause) of one picture."""
    found = settle(
        table(first),
        table(second),
        (np.array([there[0]], np.int8), np.array([there[1]], np.int8)),
        (np.array([hand[0]]), np.array([hand[1]])),
        GateConfig(actions=ACTS, **gate),
    )
    origin = None if found.origin[0] == NONE else ORIGINS[found.origin[0]]
    cause = None if found.cause[0] == NONE else FLAGS[found.cause[0]]
    return ACTIONS[found.action[0]], origin, bool(found.counts[0]), cause


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], ("keep", "attempt_1", False, None)),
        (["empty"], ("keep", "attempt_1", False, None)),
        (["refusal"], ("fall_back", "top_caption", False, "refusal")),
        (["refusal", "repeated"], ("drop_caption", None, False, "repeated")),
        (["too_short"], ("retry", None, False, None)),
        (["too_short", "repeated"], ("retry", None, False, None)),  # one more attempt comes first
    ],
)
def test_the_strictest_action_of_a_first_attempt_follows(flags, wanted):
    assert settled(flags) == wanted


@pytest.mark.parametrize(
    ("flags", "after", "wanted"),
    [
        ([], "drop_caption", ("keep", "attempt_2", True, None)),
        (["too_short"], "drop_caption", ("drop_caption", None, True, "too_short")),
        (["too_short"], "fall_back", ("fall_back", "top_caption", True, "too_short")),
        (["too_short"], "keep", ("keep", "attempt_2", True, None)),
        (["too_short", "repeated"], "fall_back", ("drop_caption", None, True, "repeated")),
        (["refusal"], "keep", ("fall_back", "top_caption", True, "refusal")),
    ],
)
def test_a_second_attempt_counts_and_is_the_last(flags, after, wanted):
    assert settled(["too_short"], flags, (SAID, SAID), after_retry=after) == wanted


def test_a_second_attempt_without_words_leaves_the_first_one_with_what_follows_a_retry():
    assert settled(["too_short"], (), (SAID, FAILED)) == ("drop_caption", None, False, "too_short")
    assert settled(["too_short"], (), (SAID, FAILED), after_retry="keep") == ("keep", "attempt_1", False, None)


def test_a_second_attempt_that_nobody_asks_for_any_more_does_not_count():
    assert settled([], ["repeated"], (SAID, SAID)) == ("keep", "attempt_1", False, None)


def test_falling_back_takes_what_there_is():
    assert settled(["refusal"], hand=(False, True))[:2] == ("fall_back", "alt")
    assert settled(["refusal"], hand=(False, False)) == ("drop_caption", None, False, "refusal")


def test_no_caption_that_is_dropped_has_an_origin_and_every_other_has_one():
    sets = [some for size in range(5) for some in itertools.combinations(ACTS, size)]
    for first, second, there, after in itertools.product(
        sets, sets, (FAILED, SAID), ("keep", "fall_back", "drop_caption")
    ):
        action, origin, _, cause = settled(first, second, (SAID, there), after_retry=after)
        assert (origin is None) == (action == "drop_caption")
        assert (cause is None) == (action == "keep")
        assert action != "retry"


def test_a_first_attempt_without_words_has_its_own_reason():
    found = settle(
        table(["too_short"]), table([]), (np.array([FAILED]), np.array([SAID])), (np.array([True]),) * 2, GateConfig()
    )
    assert (found.failed[0], found.origin[0], found.cause[0]) == (True, NONE, NONE)


def test_what_is_known_at_the_end_alone_asks_for_no_second_attempt():
    with pytest.raises(ValidationError, match="choices: keep, fall_back, drop_caption"):
        GateConfig(actions={"repeated_in_corpus": "retry"})
    assert not wants_retry(table(["empty"]), GateConfig(actions=dict.fromkeys(FLAGS, "keep"))).any()
