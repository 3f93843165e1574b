"""Which parameter has which optimizer, rate and decay, and how the rates fall."""

import pytest
import torch

from pipeline.recipes.train import TrainConfig
from pipeline.training.optim import CPUMuon, make_optimizers, orthogonal, set_rates
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
    assert type(muon) is CPUMuon
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


MUON = (3.4445, -4.775, 2.0315)
"""The coefficients a, b, c of torch.optim.Muon."""


def test_one_iteration_by_hand():
    """Of norm 5: singular values 0.6 and 0.8, each s becoming a s + b s^3 + c s^5."""
    result = orthogonal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]), MUON, 1, 1e-7)
    expected = torch.tensor([[1.193269, 0.0, 0.0], [0.0, 0.976482, 0.0]])
    assert torch.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 64), (64, 24)])
def test_singular_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonal(matrix, MUON, 5, 1e-7))
    assert 0.3 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("shape", [(24, 64), (64, 24)])
def test_steps_are_those_of_torch_but_for_its_bfloat16(shape):
    draw = torch.Generator().manual_seed(5)
    start, gradients = torch.randn(shape, generator=draw), [torch.randn(shape, generator=draw) for _ in range(3)]
    moved = []
    for kind in (torch.optim.Muon, CPUMuon):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.02, weight_decay=0.1)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        moved.append(parameter.detach())
        assert set(optimizer.state[parameter]) == {"momentum_buffer"}
    assert float((moved[0] - start).norm()) > 0.1
    assert float((moved[0] - moved[1]).norm()) < 0.02 * float((moved[0] - start).norm())
