"""Sample image codes from a GPT with classifier-free guidance and a static key-value cache."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.gpt import GPT, Condition, Prompt

MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn. `seed`: row b of a batch draws from its own stream, seeded by seed + b."""

    cfg_scale: float = 3.0  # logits = u + scale * (c - u); 1 means no guidance, and no second half of the batch
    top_k: int = 1  # keep the k likeliest codes; 0 keeps all
    temperature: float = 1.0
    top_p: float = 1.0  # then keep the likeliest codes up to this share of the probability; 1 keeps all
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for values outside their ranges."""
        for name, low, high in (
            ("cfg_scale", 0, float("inf")),
            ("top_k", 0, float("inf")),
            ("temperature", 0, float("inf")),
            ("top_p", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted {low} to {high}")


@torch.no_grad()
def generate(gpt: GPT, condition: Condition, n_tokens: int, sampling: Sampling = Sampling()) -> Tensor:
    """Return int64 codes (B, n_tokens).

    The model is put in eval mode for the call. Raises ValueError for more tokens than its grid holds, and for a
    condition of another shape or out of range.
    """
    limit = gpt.spec.grid**2
    if not 1 <= n_tokens <= limit:
        raise ValueError(f"n_tokens is {n_tokens}, wanted 1 to {limit} (grid {gpt.spec.grid})")
    gpt.check_condition(condition)
    was_training = gpt.training
    gpt.eval()
    try:
        return _generate(gpt, condition, n_tokens, sampling)
    finally:
        gpt.train(was_training)


def _generate(gpt: GPT, condition: Condition, n_tokens: int, sampling: Sampling) -> Tensor:
    prompt = gpt.embed(condition)
    batch = len(prompt.x_BTD)
    guided = sampling.cfg_scale != 1
    if guided:
        null = gpt.embed(condition, null=True)
        prompt = Prompt(torch.cat((prompt.x_BTD, null.x_BTD)), None if prompt.pad_B is None else prompt.pad_B.repeat(2))
    cache = gpt.new_cache(prompt, n_tokens)
    draws_BN = uniforms(batch, n_tokens, sampling.seed).to(prompt.x_BTD.device)
    codes_BN = torch.empty(batch, n_tokens, dtype=torch.int64, device=prompt.x_BTD.device)
    logits_BV = gpt.prefill(cache)
    for position in range(n_tokens):
        if guided:
            cond_BV, null_BV = logits_BV.chunk(2)
            logits_BV = null_BV + sampling.cfg_scale * (cond_BV - null_BV)
        codes_B = codes_BN[:, position] = pick(logits_BV, draws_BN[:, position], sampling)
        if position + 1 < n_tokens:
            logits_BV = gpt.advance(codes_B.repeat(2) if guided else codes_B, cache)
    return codes_BN


def uniforms(batch: int, n_tokens: int, seed: int) -> Tensor:
    """Return (batch, n_tokens) float64 draws from [0, 1): row b depends on seed + b alone, whatever the device."""
    rows = [
        torch.rand(n_tokens, generator=torch.Generator().manual_seed(seed + row), dtype=torch.float64)
        for row in range(batch)
    ]
    return torch.stack(rows)


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
