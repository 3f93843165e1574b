"""A GPT small enough for a test, and prompts for it."""

import torch

from pipeline.gpt import build_gpt


def small(condition="text", rope_cond="zero", **options):
    """A GPT-demo whose output is not zero, as a fresh one's is."""
    torch.manual_seed(3)
    gpt = build_gpt(
        "GPT-demo", condition, 4, rope_cond, **{"vocab": 50, "cond_len": 6, "cond_dim": 16, "classes": 10, **options}
    )
    torch.nn.init.normal_(gpt.output.weight, std=0.1)
    return gpt.requires_grad_(False)


def prompts(lengths, width=6, dim=16):
    x = torch.randn(len(lengths), width, dim, generator=torch.Generator().manual_seed(1))
    for row, length in zip(x, lengths, strict=True):
        row[: width - length] = 0
    return x, torch.tensor(lengths)
