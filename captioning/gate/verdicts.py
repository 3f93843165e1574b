"""Say what follows the flags of a picture's attempts: which words count, whose they are, and why there are none.

`pipeline whatif` and the step that writes the captions ask the same function.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from captioning.gate.config import ACTIONS, FLAGS, Action, GateConfig

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[np.int8]]
KEEP, RETRY, FALL_BACK, DROP = range(len(ACTIONS))
"""Places in ACTIONS."""
NOT_ASKED, FAILED, SAID = 0, 1, 2
"""What there is of an attempt: none, one without words, one with words."""
ORIGINS = ("attempt_1", "attempt_2", "top_caption", "alt")
NONE = -1


@dataclass(frozen=True)
class Verdicts:
    """What becomes of N pictures' captions, (N,) each.

    `action`: places in ACTIONS: KEEP, FALL_BACK or DROP; RETRY where a second attempt is wanted and there is none.
    `origin`: places in ORIGINS, NONE without a caption. `counts`: whether the second attempt is the one whose flags
    count. `cause`: place in FLAGS of the first flag that took the caption, NONE where none did. `failed`: the first
    attempt has no words, for a reason of its own.
    """

    action: Numbers
    origin: Numbers
    counts: Bools
    cause: Numbers
    failed: Bools


def actions_of(gate: GateConfig, retry: Action = "retry") -> Numbers:
    """Return what follows each of FLAGS, as places in ACTIONS; `retry`: what stands for a second attempt."""
    actions = (gate.action(flag) for flag in FLAGS)
    return np.array([ACTIONS.index(retry if action == "retry" else action) for action in actions], np.int8)


def wants_retry(flags: Mapping[str, Bools], gate: GateConfig) -> Bools:
    """Tell of each first attempt whether a second one is wanted."""
    asked = [flags[flag] for flag in FLAGS if gate.action(flag) == "retry"]
    return np.logical_or.reduce(asked) if asked else np.zeros(len(flags[FLAGS[0]]), np.bool_)


def settle(
    first: Mapping[str, Bools],
    second: Mapping[str, Bools],
    there: tuple[Numbers, Numbers],
    at_hand: tuple[Bools, Bools],
    gate: GateConfig,
) -> Verdicts:
    """Return what becomes of each caption.

    `first`, `second`: flag -> whether each attempt has it. `there`: what there is of each attempt: NOT_ASKED, FAILED,
    SAID. `at_hand`: whether each picture has a top_caption, and an alt text.

    One flag with the action retry gives a second attempt, whatever the others ask for. The strictest action of the
    flags of the attempt that counts follows; of a second one `after_retry` stands for retry, as it does where the
    second attempt has no words and the first one counts.
    """
    failed = there[0] != SAID
    again = wants_retry(first, gate) & ~failed
    counts = again & (there[1] == SAID)
    counting = np.stack([np.where(counts, second[flag], first[flag]) for flag in FLAGS])  # (flags, N)
    follows = counting * actions_of(gate, gate.after_retry)[:, None]
    action = follows.max(axis=0).astype(np.int8)
    action[again & (there[1] == NOT_ASKED)] = RETRY
    origin = np.where(counts, np.int8(1), np.int8(0))
    origin[action == RETRY] = NONE
    back = action == FALL_BACK
    origin[back] = np.where(at_hand[0], 2, np.where(at_hand[1], 3, NONE))[back]
    cause = np.where(action >= FALL_BACK, (follows == action).argmax(axis=0), NONE).astype(np.int8)
    action[back & (origin == NONE)] = DROP
    origin[action == DROP] = NONE
    origin[failed], action[failed], cause[failed] = NONE, DROP, NONE
    return Verdicts(action, origin.astype(np.int8), counts, cause, failed)
