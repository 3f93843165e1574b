"""The table of flags and actions."""

import pytest
from pydantic import ValidationError

from captioning.gate.config import ACTIONS, DEFAULT_ACTIONS, FLAGS, GateConfig


def test_every_flag_has_an_action_and_the_recipe_may_name_another():
    assert set(DEFAULT_ACTIONS.values()) <= set(ACTIONS)
    gate = GateConfig(actions={"refusal": "drop_caption"})
    assert gate.action("refusal") == "drop_caption"
    assert [gate.action(flag) for flag in FLAGS if flag != "refusal"] == [
        action for flag, action in DEFAULT_ACTIONS.items() if flag != "refusal"
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"actions": {"refusals": "keep"}}, "no flag 'refusals'; known: empty, too_short"),
        ({"actions": {"refusal": "ignore"}}, "'keep', 'retry', 'fall_back' or 'drop_caption'"),
        ({"after_retry": "retry"}, "'keep', 'fall_back' or 'drop_caption'"),
        ({"min_word": 3}, "Extra inputs"),
        ({"languages": ["english"]}, "'english' is no ISO 639 code"),
    ],
)
def test_what_is_unknown_is_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        GateConfig(**values)
