"""One code a row: temperature, top-k, top-p, the inverse of the distribution, by hand."""

import pytest
import torch

from pipeline.sampling.pick import Choices, Sampling, pick, uniforms

PROBABILITIES = torch.tensor([0.1, 0.4, 0.3, 0.2])


def of(*rows):
    return Choices.of(rows, torch.device("cpu"))


def shares(sampling):
    """Draw at 1,000 even points of [0, 1): the share of each code is its probability to a thousandth."""
    draws = torch.arange(1000, dtype=torch.float64) / 1000
    codes = pick(PROBABILITIES.log().expand(1000, 4), draws, of(*[sampling] * 1000))
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


def test_a_rows_settings_are_its_own():
    rows = [Sampling(top_k=k, temperature=t, top_p=p) for k in (0, 1, 2, 3) for t in (0.5, 1.0) for p in (0.6, 1.0)]
    logits = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        draws = uniforms(len(rows), 1, seed)[:, 0]
        together = pick(logits, draws, of(*rows))
        alone = [pick(logits[n : n + 1], draws[n : n + 1], of(row)) for n, row in enumerate(rows)]
        assert torch.equal(together, torch.cat(alone))


def test_uniforms_are_streams_by_row():
    assert torch.equal(uniforms(3, 5, 7)[1:], uniforms(2, 5, 8))
    assert torch.equal(uniforms(1, 9, 7)[:, :5], uniforms(1, 5, 7))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="top_p is 2"):
        Sampling(top_p=2.0)
