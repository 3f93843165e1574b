"""Which parameter has which optimizer, rate and decay, and how the rates fall."""

import pytest
import torch

from pipeline.recipes.train import TrainConfig
from pipeline.training.optim import make_optimizers, set_rates
from tests.support.small_gpt import small


@pytest.fixture(scope="module")
def gpt():
    """A GPT-demo on text, all of whose parameters learn."""
    return small().requires_grad_(True)


def names_of(group, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return sorted(names[id(parameter)] for parameter in group["params"])


NORMS = ["norm.weight", *(f"layers.{n}.{kind}_norm.weight" for n in range(4) for kind in ("attention", "ffn"))]
MATRICES = [
    *(f"layers.{n}.attention.{name}.weight" for n in range(4) for name in ("wqkv", "wo")),
    *(f"layers.{n}.feed_forward.{name}.weight" for n in range(4) for name in ("w1", "w2", "w3")),
]
ENDS = [
    *("tok_embeddings.weight", "output.weight"),
    *("cls_embedding.cap_proj.fc1.weight", "cls_embedding.cap_proj.fc2.weight"),
]


def test_adamw_decays_matrices_and_embeddings_and_no_norm(gpt):
    (optimizer,) = make_optimizers(gpt, TrainConfig(lr=3e-4, weight_decay=0.05))
    assert type(optimizer) is torch.optim.AdamW
    decayed, rest = optimizer.param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert names_of(decayed, gpt) == sorted([*MATRICES, *ENDS])
    assert names_of(rest, gpt) == sorted(NORMS)
    assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {(3e-4, (0.9, 0.95))}


def test_muon_takes_the_layers_matrices_alone(gpt):
    rest, muon = make_optimizers(gpt, TrainConfig(optimizer="muon", muon_lr=0.02, weight_decay=0.1))
    (matrices,) = muon.param_groups
    assert type(muon) is torch.optim.Muon
    assert (matrices["lr"], matrices["weight_decay"]) == (0.02, 0.1)
    assert names_of(matrices, gpt) == sorted(MATRICES)
    assert [names_of(group, gpt) for group in rest.param_groups] == [sorted(ENDS), sorted(NORMS)]


def test_what_does_not_learn_has_no_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    (optimizer,) = make_optimizers(model, TrainConfig())
    assert [names_of(group, model) for group in optimizer.param_groups] == [["1.weight"], ["1.bias"]]


def test_a_step_without_gradient_shrinks_what_decays():
    model = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    (optimizer,) = make_optimizers(model, TrainConfig(lr=0.5, weight_decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert model.weight.detach().numpy() == pytest.approx(0.95)  # 1 - 0.5 x 0.1
    assert model.bias.tolist() == [1, 1]


def test_cooldown_falls_to_zero_and_is_off_by_default():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    config = TrainConfig(steps=10, cooldown=0.4, lr=0.5)
    assert [set_rates([optimizer], config, step) for step in (0, 6, 7, 9)] == pytest.approx([1, 1, 0.75, 0.25])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125)
    assert {set_rates([optimizer], TrainConfig(steps=10), step) for step in range(10)} == {1.0}


def test_each_optimizer_falls_from_its_own_rate(gpt):
    config = TrainConfig(optimizer="muon", lr=0.004, muon_lr=0.02, steps=100, cooldown=0.2)
    rest, muon = make_optimizers(gpt, config)
    # the last 20 of 100 steps: step 80 is the last at full rate, 90 has half of it, 99 a twentieth
    for step, factor in ((80, 1.0), (90, 0.5), (99, 0.05), (0, 1.0)):
        assert set_rates([rest, muon], config, step) == pytest.approx(factor)
        assert [group["lr"] for group in rest.param_groups] == pytest.approx([0.004 * factor] * 2)
        assert [group["lr"] for group in muon.param_groups] == pytest.approx([0.02 * factor])
