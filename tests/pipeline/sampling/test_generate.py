"""Sampling with a cache equals the full forward pass, guidance its formula, and a row depends on no other."""

import pytest
import torch

from pipeline.sampling.decode import Decoder
from pipeline.sampling.generate import Sampling, generate
from tests.support.small_gpt import prompts, small


def test_greedy_guidance_equals_the_formula_without_a_cache():
    gpt, given = small(), prompts([2, 5])
    codes = generate(gpt, given, 16, Sampling(cfg_scale=4.0, top_k=1))
    null = gpt.cls_embedding.uncond_embedding.expand(2, -1, -1), given[1]
    with torch.no_grad():
        cond, free = gpt.logits(codes, given), gpt.logits(codes, null)
    assert torch.equal((free + 4.0 * (cond - free)).argmax(-1), codes)


def test_no_guidance_runs_no_second_half(monkeypatch):
    gpt, given = small(), prompts([2, 5])
    batches, advance = [], Decoder.advance
    monkeypatch.setattr(Decoder, "advance", lambda self, codes: batches.append(len(codes)) or advance(self, codes))
    generate(gpt, given, 3, Sampling(cfg_scale=1.0))
    generate(gpt, given, 3, Sampling(cfg_scale=2.0))
    generate(gpt, given, 4, Sampling(cfg_scale=2.0, cfg_interval=(1, 3)))
    assert batches == [2, 2, 4, 4, 4, 4, 2]


def test_codes_within_the_interval_alone_are_guided():
    gpt, given = small(), prompts([2, 5])
    plain, guided = (generate(gpt, given, 16, Sampling(cfg_scale=scale)) for scale in (1.0, 4.0))
    first = generate(gpt, given, 16, Sampling(cfg_scale=4.0, cfg_interval=(0, 6)))
    assert torch.equal(first[:, :6], guided[:, :6])
    assert torch.equal(generate(gpt, given, 16, Sampling(cfg_scale=4.0, cfg_interval=(16, None))), plain)
    late = generate(gpt, given, 16, Sampling(cfg_scale=4.0, cfg_interval=(6, None)))
    assert torch.equal(late[:, :6], plain[:, :6])
    assert not torch.equal(late, plain)
    with pytest.raises(ValueError, match="cfg_interval is 5, 2"):
        Sampling(cfg_interval=(5, 2))


def test_a_row_does_not_depend_on_its_batch():
    gpt, (x, lengths) = small(), prompts([2, 5, 3])
    settings = {"cfg_scale": 2.0, "top_k": 0, "temperature": 1.0}
    together = generate(gpt, (x, lengths), 16, Sampling(**settings, seed=10))
    for row in range(3):
        alone = generate(gpt, (x[row : row + 1], lengths[row : row + 1]), 16, Sampling(**settings, seed=10 + row))
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(together, generate(gpt, (x, lengths), 16, Sampling(**settings, seed=90)))


def test_global_generator_is_left_alone_and_mode_restored():
    gpt = small().train()
    before = torch.get_rng_state()
    first = generate(gpt, prompts([2]), 4, Sampling(top_k=0, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert gpt.training
    assert torch.equal(first, generate(gpt, prompts([2]), 4, Sampling(top_k=0, seed=1)))


def test_more_tokens_than_the_grid_holds_are_refused():
    with pytest.raises(ValueError, match="n_tokens is 17, wanted 1 to 16"):
        generate(small(), prompts([2]), 17)
