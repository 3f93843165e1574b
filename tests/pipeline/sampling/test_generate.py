"""Sampling with a cache equals the full forward pass, guidance its formula, and a row depends on no other."""

import pytest
import torch

from pipeline.sampling.generate import Sampling, generate, pick, uniforms
from tests.support.small_gpt import prompts, small


@pytest.mark.parametrize("condition", ["text", "class"])
def test_cached_steps_equal_the_full_forward(condition):
    gpt = small(condition, "identity")
    given = prompts([2, 5]) if condition == "text" else torch.tensor([3, 8])
    codes = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(5))
    full = gpt.logits(codes, given)
    cache = gpt.new_cache(gpt.embed(given), 16)
    steps = [gpt.prefill(cache), *(gpt.advance(codes[:, n], cache) for n in range(15))]
    torch.testing.assert_close(torch.stack(steps, 1), full, atol=1e-5, rtol=0)


def test_greedy_guidance_equals_the_formula_without_a_cache():
    gpt, given = small(), prompts([2, 5])
    codes = generate(gpt, given, 16, Sampling(cfg_scale=4.0, top_k=1))
    null = gpt.cls_embedding.uncond_embedding.expand(2, -1, -1), given[1]
    with torch.no_grad():
        cond, free = gpt.logits(codes, given), gpt.logits(codes, null)
    assert torch.equal((free + 4.0 * (cond - free)).argmax(-1), codes)


def test_no_guidance_runs_no_second_half(monkeypatch):
    gpt, given = small(), prompts([2, 5])
    batches = []
    advance = gpt.advance
    monkeypatch.setattr(gpt, "advance", lambda codes, cache: (batches.append(len(codes)), advance(codes, cache))[1])
    generate(gpt, given, 3, Sampling(cfg_scale=1.0))
    generate(gpt, given, 3, Sampling(cfg_scale=2.0))
    assert batches == [2, 2, 4, 4]


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


PROBABILITIES = torch.tensor([0.1, 0.4, 0.3, 0.2])


def shares(sampling):
    """Draw at 1,000 even points of [0, 1): the share of each code is its probability to a thousandth."""
    draws = torch.arange(1000, dtype=torch.float64) / 1000
    codes = pick(PROBABILITIES.log().expand(1000, 4), draws, sampling)
    return [round(float((codes == code).double().mean()), 2) for code in range(4)]


def test_pick_by_hand():
    assert shares(Sampling(top_k=0)) == [0.1, 0.4, 0.3, 0.2]
    assert shares(Sampling(top_k=2)) == [0.0, 0.57, 0.43, 0.0]
    assert shares(Sampling(top_k=9)) == [0.1, 0.4, 0.3, 0.2]
    assert shares(Sampling(top_k=0, temperature=0.5)) == [0.03, 0.53, 0.3, 0.13]  # squares over 0.30
    assert shares(Sampling(top_k=0, top_p=0.6)) == [0.0, 0.57, 0.43, 0.0]  # 0.4 alone is not yet 0.6
    assert shares(Sampling(top_k=0, top_p=0.0)) == [0.0, 1.0, 0.0, 0.0]
    assert shares(Sampling(top_k=3, top_p=0.5)) == [0.0, 0.57, 0.43, 0.0]
    assert shares(Sampling(top_k=1)) == shares(Sampling(top_k=0, temperature=0.0)) == [0.0, 1.0, 0.0, 0.0]


def test_uniforms_are_streams_by_row():
    assert torch.equal(uniforms(3, 5, 7)[1:], uniforms(2, 5, 8))
    assert torch.equal(uniforms(1, 9, 7)[:, :5], uniforms(1, 5, 7))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="top_p is 2"):
        Sampling(top_p=2.0)
    with pytest.raises(ValueError, match="n_tokens is 17, wanted 1 to 16"):
        generate(small(), prompts([2]), 17)
