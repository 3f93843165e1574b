"""Keep a running average of the weights, which samples and evaluation use."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

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
            self.tensors[name].lerp_(parameter.detach().float(), share)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from averages that were saved. Raises KeyError for one that is missing."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

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
