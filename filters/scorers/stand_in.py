"""Fill a model with seeded numbers, so that real loading code can run where no real weights are."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

FORMAT = 1
"""Part of every stand-in's identity: bump it whenever these functions would give other numbers."""


def seeded(state: "Mapping[str, torch.Tensor]", name: str, gain: float = 1.0) -> "dict[str, torch.Tensor]":
    """Return a state dict of the same names and shapes whose matrices are uniform random, with deviation gain /
    sqrt(fan in).

    Vectors keep what normalisation layers start from: scales of one, shifts of zero. The numbers depend on `name` and
    the tensor's name alone, not on the version of torch.
    """
    return {key: _tensor(f"{name}/{key}", tensor, gain) for key, tensor in state.items()}


def _tensor(key: str, tensor: "torch.Tensor", gain: float) -> "torch.Tensor":
    import torch

    if tensor.ndim < 2 and not key.endswith("class_embedding"):
        one = key.endswith(("weight", "running_var"))
        return tensor.clone() if tensor.ndim == 0 else torch.full_like(tensor, 1.0 if one else 0.0)
    seed = int.from_bytes(hashlib.sha256(f"{FORMAT}/{key}".encode()).digest()[:8], "little")
    fan_in = int(np.prod(tensor.shape[1:])) if tensor.ndim > 1 else tensor.numel()
    drawn = np.random.Generator(np.random.PCG64(seed)).random(
        tensor.numel()
    )  # the seed is the tensor's name: no state, no order
    spread = gain * np.sqrt(3 / fan_in)
    return torch.from_numpy(((2 * drawn - 1) * spread).astype(np.float32)).reshape(tensor.shape)
