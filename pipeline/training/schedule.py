"""Say what share of its highest value the learning rate has at a step."""

import math

from pipeline.recipes.train import TrainConfig


def rate_factor(config: TrainConfig, step: int) -> float:
    """Return the factor of every learning rate for `step` (from 0), 0..1.

    Warm-up rises linearly to 1 over `warmup` steps. Then "constant" stays at 1; "linear" and "cosine" fall to `lr_end`
    at the last step; "wsd" (warm-up, stable, decay) stays at 1 and falls linearly to `lr_end` over the last `cooldown`
    of all steps.
    """
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return rise * _fall(config, step)


def _fall(config: TrainConfig, step: int) -> float:
    if not config.falls or config.steps is None:
        return 1.0
    if config.cooldown:
        rest = min(1.0, (config.steps - step) / (config.steps * config.cooldown))
        return config.lr_end + (1 - config.lr_end) * rest
    done = min(1.0, max(0, step - config.warmup) / max(1, config.steps - config.warmup))
    rest = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.lr_end + (1 - config.lr_end) * rest
