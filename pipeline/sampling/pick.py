"""Draw one code a row from its logits: guidance, temperature, top-k, top-p, the inverse of the distribution."""

from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn. `seed`: row b of a batch draws from its own stream, seeded by seed + b."""

    cfg_scale: float = 3.0  # logits = u + scale * (c - u); 1 means no guidance, and no second half of the batch
    top_k: int = 1  # keep the k likeliest codes; 0 keeps all
    temperature: float = 1.0
    top_p: float = 1.0  # then keep the likeliest codes up to this share of the probability; 1 keeps all
    seed: int = 0
    cfg_interval: tuple[int, int | None] = field(default=(0, None))  # codes that are guided: from, up to; None: the end

    def __post_init__(self) -> None:
        """Raise ValueError for values outside their ranges."""
        for name, low, high in (("cfg_scale", 0, inf), ("top_k", 0, inf), ("temperature", 0, inf), ("top_p", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted {low} to {high}")
        start, stop = self.cfg_interval
        if start < 0 or (stop is not None and stop < start):
            raise ValueError(f"cfg_interval is {start}, {stop}, wanted two numbers of codes, the second not below")

    def guided(self, position: int) -> bool:
        """Tell whether the code at this position is drawn with guidance."""
        start, stop = self.cfg_interval
        return self.cfg_scale != 1 and start <= position and (stop is None or position < stop)

    def guided_until(self, n_tokens: int) -> int:
        """Return behind which of the codes none is guided."""
        start, stop = self.cfg_interval
        end = n_tokens if stop is None else min(stop, n_tokens)
        return 0 if self.cfg_scale == 1 or start >= end else end


def uniforms(batch: int, n_tokens: int, seed: int) -> Tensor:
    """Return (batch, n_tokens) float64 draws from [0, 1): row b depends on seed + b alone, whatever the device."""
    rows = [
        torch.rand(n_tokens, generator=torch.Generator().manual_seed(seed + row), dtype=torch.float64)
        for row in range(batch)
    ]
    return torch.stack(rows)


def guide(cond_BV: Tensor, null_BV: Tensor, scale: float) -> Tensor:
    """Return u + scale (c - u)."""
    return null_BV + scale * (cond_BV - null_BV)


def pick(logits_BV: Tensor, draws_B: Tensor, sampling: Sampling) -> Tensor:
    """Return one code per row (B,): temperature, then top-k, then top-p, then the inverse of the distribution at
    `draws_B`."""
    if sampling.top_k == 1:
        return logits_BV.argmax(-1)
    logits_BV = logits_BV.float() / max(sampling.temperature, MIN_TEMPERATURE)
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if sampling.top_p < 1:
        logits_BV = _nucleus(logits_BV, sampling.top_p)
    cdf_BV = logits_BV.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cdf_BV, draws_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0].clamp(
        max=logits_BV.shape[-1] - 1
    )


def _nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """Drop the codes that come after the share `top_p` is reached; the likeliest always stays."""
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    sorted_BV = sorted_BV.masked_fill(
        (before_BV > top_p).index_fill(-1, torch.zeros(1, dtype=torch.int64, device=order_BV.device), False), -torch.inf
    )
    return torch.empty_like(logits_BV).scatter_(-1, order_BV, sorted_BV)
