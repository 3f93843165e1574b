"""Draw a batch of image codes from a GPT with classifier-free guidance."""

import torch
from torch import Tensor

from pipeline.gpt import GPT, Condition, Prompt
from pipeline.sampling.decode import Decoder
from pipeline.sampling.pick import Choices, Sampling, guide, pick, uniforms

__all__ = ["Sampling", "generate"]
GREEDY = Sampling()


@torch.no_grad()
def generate(
    gpt: GPT, condition: Condition, n_tokens: int, sampling: Sampling = GREEDY, *, decoder: Decoder | None = None
) -> Tensor:
    """Return int64 codes (B, n_tokens).

    The model is put in eval mode for the call. decoder: one of this GPT to draw with again, with as many rows as the
    batch, or twice as many with guidance, and room for `n_tokens`: what is compiled is compiled once. Raises ValueError
    for more tokens than the grid holds, and for a condition of another shape or out of range.
    """
    limit = gpt.spec.grid**2
    if not 1 <= n_tokens <= limit:
        raise ValueError(f"n_tokens is {n_tokens}, wanted 1 to {limit} (grid {gpt.spec.grid})")
    gpt.check_condition(condition)
    was_training = gpt.training
    gpt.eval()
    try:
        prompt, until = gpt.embed(condition), sampling.guided_until(n_tokens)
        if until:
            prompt = both(prompt, gpt.embed(condition, null=True))
        decoder = decoder or Decoder(gpt, len(prompt.x_BTD), n_tokens)
        return _generate(decoder, prompt, n_tokens, sampling)
    finally:
        gpt.train(was_training)


def _generate(decoder: Decoder, prompt: Prompt, n_tokens: int, sampling: Sampling) -> Tensor:
    rows, until, device = len(prompt.x_BTD), sampling.guided_until(n_tokens), prompt.x_BTD.device
    batch = rows // 2 if until else rows
    draws_BN = uniforms(batch, n_tokens, sampling.seed).to(device)
    codes_BN = torch.empty(batch, n_tokens, dtype=torch.int64, device=device)
    choices = Choices.of([sampling] * batch, device)
    logits_BV = decoder.fill(list(range(rows)), prompt)
    for position in range(n_tokens):
        if sampling.guided(position):
            logits_BV = guide(logits_BV[:batch], logits_BV[batch:], sampling.cfg_scale)
        codes_B = codes_BN[:, position] = pick(logits_BV[:batch], draws_BN[:, position], choices)
        if position + 1 < n_tokens:
            logits_BV = decoder.advance(codes_B.repeat(2) if position + 1 < until else codes_B)
    return codes_BN


def both(prompt: Prompt, null: Prompt) -> Prompt:
    """Return prompts with those without their content behind them, for guidance."""
    pad_B = None if prompt.pad_B is None else prompt.pad_B.repeat(2)
    return Prompt(torch.cat((prompt.x_BTD, null.x_BTD)), pad_B)
