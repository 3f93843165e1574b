"""[train]: what the trainer is told is checked before it starts."""

import pytest
from pydantic import ValidationError

from pipeline.recipes.train import TrainConfig


def test_defaults_are_llamagens_stage_one():
    config = TrainConfig()
    assert (config.model, config.cond_len, config.cond_dim, config.batch, config.lr) == ("GPT-XL", 120, 2048, 256, 1e-4)
    assert (config.betas, config.weight_decay, config.cond_dropout) == ((0.9, 0.95), 0.05, 0.1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "GPT-9"}, "unknown model; choices: .*GPT-B"),
        ({"captions": {"alt": -1.0, "llava": 2.0}}, "weights must not be negative"),
        ({"captions": {"alt": 0.0}}, "one must be above 0"),
        ({"captions": {}}, "at least 1 item"),
        ({"condition": "class", "recall_pictures": 4}, "recall_pictures draws captions"),
        ({"condition": "class", "classes": 10, "sample_prompts": ["3", "10"]}, "'10' is no class.*from 0 to 9"),
        ({"condition": "class", "sample_prompts": ["a cat"]}, "'a cat' is no class"),
        ({"cooldown": 0.2}, "cooldown needs `steps`"),
        ({"cooldown": 0.2, "steps": 10, "seconds": 3.0}, "and no `seconds`"),
        ({"batchsize": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be(values, says):
    with pytest.raises(ValidationError, match=says):
        TrainConfig(**values)


def test_what_is_close_to_that_and_can_be():
    assert TrainConfig(condition="class", classes=10, sample_prompts=["0", "9"]).sample_prompts == ["0", "9"]
    assert TrainConfig(sample_prompts=["a cat", "10"]).condition == "text"  # captions may be any words
    assert TrainConfig(cooldown=0.2, steps=10).cooldown == 0.2
    assert TrainConfig(captions={"alt": 0.0, "llava": 1.0}).captions["llava"] == 1.0


def test_a_config_never_changes():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().lr = 1.0
