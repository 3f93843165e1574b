"""Learning rates by hand: warm-up, constant, WSD, linear, cosine."""

import pytest

from pipeline.recipes.train import TrainConfig
from pipeline.training.schedule import rate_factor


def factors(steps, **given):
    config = TrainConfig(steps=steps, **given)
    return [round(rate_factor(config, step), 6) for step in range(steps)]


def test_llamagens_rate_is_constant():
    assert factors(5) == [1.0] * 5
    assert rate_factor(TrainConfig(), 10**6) == 1.0


def test_warm_up_rises_linearly_and_reaches_one():
    assert factors(6, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_wsd_stays_and_falls_in_the_cooldown():
    assert factors(10, cooldown=0.4) == [1.0] * 7 + [0.75, 0.5, 0.25]
    assert factors(10, cooldown=0.4, schedule="wsd", lr_end=0.2) == [1.0] * 7 + [0.8, 0.6, 0.4]
    assert factors(10, cooldown=0.4, warmup=2)[:3] == [0.5, 1.0, 1.0]


def test_linear_and_cosine_fall_from_the_end_of_the_warm_up():
    assert factors(6, schedule="linear", warmup=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert factors(4, schedule="cosine") == pytest.approx([1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2], abs=1e-6)
    assert factors(4, schedule="cosine", lr_end=0.1)[2] == pytest.approx(0.55)
    assert rate_factor(TrainConfig(steps=4, schedule="linear", lr_end=0.1), 9) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schedule": "cosine"}, "'cosine' needs `steps`, and no `seconds`"),
        ({"schedule": "linear", "steps": 5, "seconds": 9}, "'linear' needs `steps`, and no `seconds`"),
        ({"schedule": "wsd", "steps": 5}, "needs a cooldown above 0"),
        ({"schedule": "cosine", "steps": 5, "cooldown": 0.2}, "has no cooldown"),
        ({"warmup": 5, "steps": 5}, "warmup is 5 of 5 steps: the rate would never reach its highest"),
    ],
)
def test_schedules_without_an_end_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**given)
