"""Layers that compute again give the same gradients and keep less; one process can hold a spread model."""

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from pipeline.gpt import build_gpt
from pipeline.recipes.train import TrainConfig
from pipeline.training.ema import Average
from pipeline.training.sharding import (
    Placement,
    clip_gradients,
    exchanging,
    is_sharded,
    like,
    part,
    placed,
    recompute_layers,
    whole,
    whole_gpt,
)
from tests.support.small_gpt import prompts, small
from tests.support.spread_training import HERE, OPTIONS, Run


@pytest.fixture
def _group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gradients(recompute):
    """Return gradients of a step with dropout, and how many numbers were kept for the way back."""
    torch.manual_seed(0)
    gpt = build_gpt("GPT-demo", "text", 4, **OPTIONS).train()
    torch.nn.init.normal_(gpt.output.weight, std=0.1)
    if recompute:
        recompute_layers(gpt)
    kept = []
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        loss = gpt(torch.arange(32).view(2, 16), prompts([6, 3]))
    loss.backward()
    return [parameter.grad for parameter in gpt.parameters()], sum(kept)


def test_layers_that_compute_again_give_the_same_gradients_and_keep_less():
    (plain, kept), (again, kept_again) = gradients(False), gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert kept_again < kept / 4


def test_a_layer_that_keeps_its_input_draws_as_before():
    gpt = small()
    codes = torch.arange(16).view(1, 16)
    before = gpt.logits(codes, prompts([4]))
    recompute_layers(gpt)
    assert torch.equal(gpt.logits(codes, prompts([4])), before)


@pytest.mark.usefixtures("_group")
def test_a_spread_model_has_slices_and_gives_itself_whole():
    run = Run(parallel="fsdp")
    assert is_sharded(run.gpt)
    assert all(isinstance(layer, FSDPModule) for layer in run.gpt.layers)
    assert all(isinstance(parameter, DTensor) for parameter in run.gpt.parameters())
    weight = run.gpt.norm.weight.detach()
    assert not isinstance(whole(weight), DTensor)
    assert not isinstance(part(weight), DTensor)
    assert isinstance(like(torch.zeros(192), weight), DTensor)
    copy = whole_gpt(run.gpt, {"norm.weight": like(torch.full((192,), 2.0), weight)}, HERE)
    assert torch.equal(copy.norm.weight, torch.full((192,), 2.0))
    assert torch.equal(copy.rope_cos_PR, run.gpt.rope_cos_PR)
    codes = torch.zeros(1, 16, dtype=torch.long)
    assert copy.logits(codes, prompts([6])).shape == (1, 16, 50)
    with exchanging(run.gpt, last=False):
        run.gpt(codes, prompts([6])).backward()
    with exchanging(run.gpt, last=True):
        run.gpt(codes, prompts([6])).backward()
    norm = clip_gradients(run.gpt.parameters(), 1e-3)
    assert norm > 1e-3
    assert float(clip_gradients(run.gpt.parameters(), 1.0)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.usefixtures("_group")
def test_a_spread_model_is_measured_with_its_average_and_goes_on():
    run = Run(parallel="fsdp").take(0)
    average = Average(run.gpt, 0.9)
    with torch.no_grad():
        for tensor in average.tensors.values():
            part(tensor).mul_(1.5)
    codes = torch.arange(16).view(1, 16)
    run.gpt.eval()

    def loss():
        with torch.no_grad():
            return float(run.gpt(codes, prompts([6])))

    before = loss()
    with average.in_place():
        with_average = loss()
        copy = whole_gpt(run.gpt, None, HERE)
        assert with_average == pytest.approx(float(copy(codes, prompts([6])).detach()))
    assert abs(with_average - before) > 0.01
    assert loss() == before


def test_a_whole_model_is_placed_and_drawn_from_as_it_is():
    gpt = small()
    assert placed(gpt, HERE, Placement()) is gpt
    assert not is_sharded(gpt)
    assert whole_gpt(gpt, None, HERE) is gpt
    assert whole_gpt(gpt, None, HERE, bf16=True).norm.weight.dtype == torch.bfloat16
    assert like(gpt.norm.weight, gpt.norm.weight) is gpt.norm.weight
    with exchanging(gpt, last=False):
        pass


def test_the_placement_is_the_recipes():
    config = TrainConfig(parallel="fsdp", activation_checkpointing=True, compile=True)
    assert Placement.of(config, bf16=True) == Placement("fsdp", True, True, True)
    with pytest.raises(ValueError, match="optimizer = 'muon' turns whole matrices"):
        TrainConfig(parallel="fsdp", optimizer="muon")
