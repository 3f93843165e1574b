"""What a run takes, by hand; what does not fit is refused with the settings that do."""

import json

import pytest

from pipeline.gpt_spec import gpt_spec
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.train import TrainConfig
from pipeline.training.budget import SPARE, check_fits, hours, plan_of

B7 = 6_635_655_168


def plan(model="GPT-7B", world=1, kind="text", **given):
    config = TrainConfig(model=model, condition=kind, **given)
    return plan_of(config, gpt_spec(model, kind, 16, "zero", {}), world, bf16=True)


def test_states_by_hand():
    assert plan().states == B7 * 16 + B7 * 2
    assert plan(ema=0.99).states == B7 * 20 + B7 * 2
    layers = 2 * (4 * 4096**2 + 3 * 4096 * 11008) * 2
    assert plan(world=8, parallel="fsdp").states == B7 * 2 + layers
    assert plan(world=8).states == B7 * 18


def test_activations_by_hand():
    """GPT-B with classes: 256 positions, 12 layers of width 768 and 2,048; 16,384 logits of 10 bytes."""
    layer = 38 * 768 + 8 * 2048
    whole = plan("GPT-B", kind="class", batch=4)
    assert whole.activations == 4 * 256 * layer * 12 + 4 * 256 * 16384 * 10
    assert plan("GPT-B", kind="class", batch=4, micro_batch=1).activations == whole.activations / 4
    kept = plan("GPT-B", kind="class", batch=4, activation_checkpointing=True)
    assert kept.activations == 4 * 256 * (4 * 768 * 12 + layer) + 4 * 256 * 16384 * 10


def test_7b_on_one_card_of_80_gb_is_refused_with_what_fits():
    with pytest.raises(RecipeError) as raised:
        check_fits(plan(), 80e9, 256)
    says = str(raised.value)
    assert "of each card, which has 80 GB: states 119" in says
    assert "--set train.parallel=fsdp" in says
    world = int(says.split(" cards (torchrun")[0].rpartition(" ")[2])
    size = int(says.split("train.micro_batch=")[1].split()[0])
    fits = plan(world=world, parallel="fsdp", micro_batch=size, activation_checkpointing="activation_check" in says)
    assert fits.total <= SPARE * 80e9
    check_fits(fits, 80e9, 256)


def test_too_many_pictures_at_once_need_fewer_and_nothing_else():
    with pytest.raises(RecipeError, match=r"this fits, in about \d+ GB: --set train\.micro_batch=(\d+)$") as raised:
        check_fits(plan("GPT-XL"), 80e9, 256)
    size = int(str(raised.value).rpartition("=")[2])
    assert plan("GPT-XL", micro_batch=size).total <= SPARE * 80e9 < plan("GPT-XL", micro_batch=2 * size).total


def test_what_fits_nowhere_says_so():
    with pytest.raises(RecipeError, match=r"take a smaller train\.model"):
        check_fits(plan(), 1e9, 256)


def test_hours_are_those_of_the_rate_that_was_measured(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert hours(metrics, 256, 1000) == (
        "1,000 steps of 256 pictures; how long they take is known after the first progress line"
    )
    lines = [{"step": 1, "samples_per_s": 50.0}, {"step": 2, "samples_per_s": 128.0}, {"step": 2, "validation_loss": 1}]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + "half a li")
    assert hours(metrics, 256, 9000) == "9,000 steps of 256 pictures: 5.0 h at the 128.0 samples/s of the last line"
