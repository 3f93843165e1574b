"""Keep a running average of the weights, which samples and evaluation use."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

WARMUP = 10
"""The decay at step n is at most (1 + n) / (WARMUP + n), so that the first weights are soon forgotten."""


class Average:
    """A float32 copy of the parameters, moved towards them after each step: a = d a + (1 - d) w."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.model = decay, model
        self.tensors = {name: parameter.detach().clone().float() for name, parameter in self._parameters()}

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad)

    @torch.no_grad()
    def update(self, good: Tensor, step: int) -> None:
        """Move after the step `step` (from 0), where `good`, () on the device, holds."""
        share = (1 - min(self.decay, (1 + step) / (WARMUP + step))) * good.float()
        for name, parameter in self._parameters():
            _held(self.tensors[name]).lerp_(_held(parameter.detach()).float(), share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averages for weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)


def _held(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
