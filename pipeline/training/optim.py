"""Make the optimizers: AdamW as LlamaGen has it, or Muon on the layers' matrices for the demo."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.recipes.train import TrainConfig
from pipeline.training.schedule import rate_factor


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
    muon = CPUMuon if matrices and matrices[0].device.type == "cpu" else torch.optim.Muon
    return [rest, muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay)]


class CPUMuon(torch.optim.Muon):
    """Muon whose iteration is in float32, for parameters on a CPU; settings and state are those of torch's.

    torch's is in bfloat16, which a CPU without instructions for it multiplies 80 times slower than float32 (measured:
    768 x 768 in 850 ms, 10.5 ms; a step of the demo's training took 6 s on an AVX2 core).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients that there are; return the closure's loss, None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Move one matrix, of (rows, columns), by its orthogonal update: longer for matrices of more rows than
        columns."""
        gradient, state, momentum = parameter.grad, self.state[parameter], group["momentum"]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = orthogonal(
            gradient.lerp(average, momentum) if group["nesterov"] else average,
            group["ns_coefficients"],
            group["ns_steps"],
            group["eps"],
        )
        rows, columns = parameter.shape
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], iterations: int, eps: float
) -> torch.Tensor:
    """Return about the orthogonal matrix nearest to one of (rows, columns): all singular values near 1.

    Newton-Schulz: with X of Frobenius norm 1 and A = X X', X becomes a X + (b A + c A A) X, in X's own precision. The
    coefficients are Muon's (Jordan et al., 2024), which bring singular values to 0.7 to 1.2 in five iterations.
    """
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x: torch.Tensor = wide / wide.norm().clamp(min=eps)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrix else x.T


def _adamw(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=parameters[0].device.type == "cuda")


def set_rates(optimizers: list[torch.optim.Optimizer], config: TrainConfig, step: int) -> float:
    """Set every group's learning rate for `step` (from 0) and return its factor."""
    factor = rate_factor(config, step)
    for optimizer in optimizers:
        base = config.muon_lr if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = base * factor
    return factor
