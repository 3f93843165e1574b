"""Draw one code a row from its logits: guidance, temperature, top-k, top-p, the inverse of the distribution."""

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Choices:
    """The settings of several rows side by side, on the device; what the host must know stands beside them."""

    temperature_B1: Tensor
    top_k_B1: Tensor
    top_p_B1: Tensor
    greedy: bool  # every row takes its likeliest code
    most: int  # the largest top_k of a row; 0: no row has one
    nucleus: bool  # some row has a top_p below 1

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device) -> "Choices":
        """Return the settings of these rows."""
        top_k = [row.top_k for row in rows]
        return cls(
            torch.tensor([max(row.temperature, MIN_TEMPERATURE) for row in rows], device=device)[:, None],
            torch.tensor(top_k, device=device)[:, None],
            torch.tensor([row.top_p for row in rows], device=device)[:, None],
            greedy=all(count == 1 for count in top_k),
            most=max(top_k),
            nucleus=any(row.top_p < 1 for row in rows),
        )


def guide(cond_BV: Tensor, null_BV: Tensor, scale: float | Tensor) -> Tensor:
    """Return u + scale (c - u). scale: one, or a row's each (B, 1)."""
    return null_BV + scale * (cond_BV - null_BV)


def pick(logits_BV: Tensor, draws_B: Tensor, choices: Choices) -> Tensor:
    """Return one code per row (B,): temperature, then top-k, then top-p, then the inverse of the distribution at
    `draws_B`. A row's code does not depend on the other rows' settings."""
    best_B = logits_BV.argmax(-1)
    if choices.greedy:
        return best_B
    last = logits_BV.shape[-1] - 1
    scaled_BV = logits_BV.float() / choices.temperature_B1
    if choices.most:
        kept_BK = scaled_BV.topk(min(choices.most, last + 1)).values
        least_B1 = kept_BK.gather(1, (choices.top_k_B1 - 1).clamp(0, kept_BK.shape[1] - 1))
        scaled_BV = scaled_BV.masked_fill((scaled_BV < least_B1) & (choices.top_k_B1 > 0), -torch.inf)
    if choices.nucleus:
        scaled_BV = _nucleus(scaled_BV, choices.top_p_B1)
    cdf_BV = scaled_BV.double().softmax(-1).cumsum(-1)
    drawn_B1 = torch.searchsorted(cdf_BV, draws_B[:, None] * cdf_BV[:, -1:], right=True).clamp(max=last)
    return torch.where(choices.top_k_B1 == 1, best_B[:, None], drawn_B1)[:, 0]


def _nucleus(logits_BV: Tensor, top_p_B1: Tensor) -> Tensor:
    """Drop the codes that come after the share top_p is reached; the likeliest always stays, and all where it is 1."""
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probs_BV = sorted_BV.softmax(-1)
    dropped_BV = (probs_BV.cumsum(-1) - probs_BV > top_p_B1) & (top_p_B1 < 1)
    dropped_BV[:, 0] = False
    return torch.empty_like(logits_BV).scatter_(-1, order_BV, sorted_BV.masked_fill(dropped_BV, -torch.inf))
