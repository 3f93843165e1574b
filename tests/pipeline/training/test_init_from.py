"""A run starts from the weights that fit it, whatever file they are in; others are refused with the setting to use."""

import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from manifests.weights import WeightsError
from pipeline.gpt import GPT
from pipeline.recipes.schema import RecipeError
from pipeline.training.checkpoint import save_checkpoint
from pipeline.training.init_from import start_from, weights_to_start_from
from pipeline.training.optimizer_states import Trained
from pipeline.training.weights import GPTFacts
from tests.support.small_gpt import small
from tests.support.stored_runs import memory_root, upload

MADE = {"name": "VQ-demo", "fingerprint": "a" * 64, "codebook": 50, "stand_in": True}
FACTS = GPTFacts("GPT-demo", "text", 50, cond_len=6, cond_dim=16, grid=4, tokenizer=MADE, text="hashed words")


def test_weights_start_a_new_run_from_every_kind_of_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    gpt = small()
    wanted = gpt.norm.weight + torch.arange(192.0)
    with torch.no_grad():
        gpt.norm.weight.copy_(wanted)
    torch.save({"model": gpt.state_dict(), "optimizer": {}, "steps": 7}, tmp_path / "released.pt")
    save_file(gpt.state_dict(), tmp_path / "plain.safetensors", FACTS.header())
    ema = {name: tensor + 1 for name, tensor in gpt.named_parameters()}
    save_checkpoint(tmp_path / "checkpoints", Trained(gpt, [], ema), {"step": 3, "gpt": asdict(FACTS)}, keep=1)
    stored = upload(tmp_path, memory_root())
    sources = ("released.pt", "plain.safetensors", "checkpoints", "checkpoints/0000003")
    for source in [*(tmp_path / each for each in sources), *(stored / each for each in sources)]:
        fresh = small()
        said = start_from(fresh, weights_to_start_from(str(source), False, FACTS), FACTS)
        assert torch.equal(fresh.norm.weight, wanted)
        assert len(said) == 1
        assert "GPT-demo, text 6 x 16, 50 codes" in said[0]
    start_from(fresh, weights_to_start_from(str(tmp_path / "checkpoints"), True, FACTS), FACTS)
    assert torch.equal(fresh.norm.weight, wanted + 1)


def test_the_second_stage_starts_from_the_first_on_a_larger_grid(tmp_path):
    first = small(rope_cond="identity")
    facts = replace(FACTS, rope_cond="identity")
    save_file(first.state_dict(), tmp_path / "a.safetensors", replace(facts, step=9).header())
    wanted = replace(facts, grid=8, text="tiny-t5 0123", tokenizer={**MADE, "fingerprint": "b" * 64})
    second = GPT(wanted.spec())
    said = start_from(second, weights_to_start_from(str(tmp_path / "a.safetensors"), False, wanted), wanted)
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in second.state_dict().items())
    assert "grid 4 before, 8 now" in said[1]
    assert "made by VQ-demo aaaaaaaaaaaa…, those of the shards by VQ-demo bbbbbbbbbbbb…" in said[2]
    assert "text features were of hashed words, these are of tiny-t5 0123" in said[3]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_unfit_weights_are_refused_with_the_setting_to_use(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": small().state_dict()}, "released.pt")
    save_file(small().state_dict(), "ours.safetensors", replace(FACTS, rope_cond="identity").header())
    torch.save(small("class").state_dict(), "classes.pt")
    Path("evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    identity = replace(FACTS, rope_cond="identity")
    for source, wanted, error, says in (
        ("released.pt", identity, RecipeError, r"'zero', as all of LlamaGen's; .* set train\.rope_cond = 'zero'"),
        ("ours.safetensors", FACTS, RecipeError, r"rope_cond 'identity'; .* set train\.rope_cond = 'identity'"),
        ("classes.pt", FACTS, RecipeError, r"is GPT-demo, 10 classes, 50 codes.*: condition 'class', not 'text'"),
        ("released.pt", replace(FACTS, model="GPT-B"), RecipeError, "model 'GPT-demo', not 'GPT-B'"),
        ("released.pt", replace(FACTS, cond_dim=32), RecipeError, "cond_dim 16, not 32"),
        ("evil.pt", FACTS, WeightsError, "evil.pt"),
        ("nowhere.pt", FACTS, WeightsError, "no weights at 'nowhere.pt'; wanted a checkpoint folder"),
    ):
        with pytest.raises(error, match=says):
            weights_to_start_from(source, False, wanted)
    assert not Path("evil").exists()
