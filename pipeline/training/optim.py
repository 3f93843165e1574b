"""Make the optimizers: AdamW as LlamaGen has it, or Muon on the layers' matrices for the demo."""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.recipes.train import TrainConfig


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Return the optimizers that together own every trainable parameter once.

    Weight decay falls on parameters of two dimensions and more. Muon (`train.optimizer = "muon"`) takes the
    two-dimensional matrices of the layers; embeddings, norms and the output stay with AdamW.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return [_adamw([parameter for _, parameter in named], config)]
    matrices = [parameter for name, parameter in named if name.startswith("layers.") and parameter.ndim == 2]
    taken = {id(parameter) for parameter in matrices}
    rest = _adamw([parameter for _, parameter in named if id(parameter) not in taken], config)
    return [rest, torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay)]


def _adamw(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=parameters[0].device.type == "cuda")


def set_rates(optimizers: list[torch.optim.Optimizer], config: TrainConfig, step: int) -> float:
    """Set every group's learning rate for `step` (from 0) and return its factor: 1, but for a linear fall to 0 in the
    cooldown."""
    factor = 1.0
    if config.cooldown and config.steps is not None:
        factor = min(1.0, (config.steps - step) / (config.steps * config.cooldown))
    for optimizer in optimizers:
        base = config.muon_lr if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = base * factor
    return factor
