"""Weights come from every file of LlamaGen's kind, and the file says what model they are."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from manifests.files import write_json
from manifests.weights import WeightsError
from pipeline.gpt import GPT, build_gpt
from pipeline.gpt_spec import SIZES
from pipeline.training.weights import GPTFacts, export_llamagen_pt, find_weights, read_gpt_weights
from tests.support.small_gpt import small

PREFIX = 6
GRID = 4


@pytest.fixture(scope="module")
def tensors():
    return {name: tensor.clone() for name, tensor in small().state_dict().items()}


def with_wrappers(tensors, wrap):
    return {wrap(name): tensor for name, tensor in tensors.items()}


def with_sampler(tensors):
    """What LlamaGen's sampler leaves in a state dict: tables for 6 + 16 positions, keys and values."""
    caches = {
        f"layers.{layer}.attention.kv_cache.{which}_cache": torch.full((2, 6, 24, 32), float("nan"))
        for layer in range(4)
        for which in "kv"
    }
    side = PREFIX + GRID**2 + 2  # rounded up to a multiple of 8
    return {
        **tensors,
        **caches,
        "causal_mask": torch.ones(2, side, side, dtype=torch.bool),
        "freqs_cis": torch.zeros(PREFIX + GRID**2, 16, 2),
    }


LAYOUTS = {
    "flat": lambda t: t,
    "model": lambda t: {"model": t, "optimizer": {"state": {}}, "steps": 9},
    "module": lambda t: {"module": t},
    "state_dict": lambda t: {"state_dict": with_wrappers(t, "model.{}".format)},
    "FSDP in mid-name": lambda t: with_wrappers(
        t, lambda n: "_fsdp_wrapped_module." + n.replace("attention.", "_fsdp_wrapped_module.attention.")
    ),
    "mixed": lambda t: {
        ("module." if number % 2 else "_orig_mod.module.") + name: tensor
        for number, (name, tensor) in enumerate(t.items())
    },
    "a sampler's": with_sampler,
    "half": lambda t: {"model": {name: tensor.half() for name, tensor in t.items()}},
    "bfloat16": lambda t: {"model": {name: tensor.bfloat16() for name, tensor in t.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_every_layout_load(layout, tensors, tmp_path):
    path = tmp_path / "consolidated.pth"
    torch.save(LAYOUTS[layout](tensors), path)
    read = read_gpt_weights(path)
    assert read.tensors.keys() == tensors.keys()
    dtype = {"half": torch.half, "bfloat16": torch.bfloat16}.get(layout, torch.float32)
    assert all(torch.equal(read.tensors[name], tensors[name].to(dtype).float()) for name in tensors)
    assert (read.facts.model, read.facts.condition, read.facts.vocab) == ("GPT-demo", "text", 50)
    assert (read.facts.cond_len, read.facts.cond_dim, read.facts.rope_cond) == (6, 16, "zero")
    assert read.facts.grid == (GRID if layout == "a sampler's" else None)
    gpt = GPT(read.facts.spec(grid=GRID))
    gpt.load_state_dict(read.tensors, strict=True)


def test_a_mask_alone_tells_the_grid(tensors, tmp_path):
    torch.save({**tensors, "causal_mask": torch.ones(24, 24)}, tmp_path / "a.pt")  # 6 + 16, rounded up to 24
    assert read_gpt_weights(tmp_path / "a.pt").facts.grid == GRID


def test_classes_and_published_sizes_are_told_from_shapes(tmp_path):
    torch.save({"model": small("class").state_dict()}, tmp_path / "c2i.pt")
    facts = read_gpt_weights(tmp_path / "c2i.pt").facts
    assert (facts.condition, facts.classes) == ("class", 10)
    assert facts.says == "GPT-demo, 10 classes, 50 codes, rope_cond 'zero'"
    assert len({(layers, dim) for layers, _, dim in SIZES.values()}) == len(SIZES)


def test_the_model_comes_before_its_average_unless_that_is_asked_for(tensors, tmp_path):
    average = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({"ema": average, "model": tensors}, tmp_path / "both.pt")
    torch.save({"ema": average}, tmp_path / "average.pt")
    torch.save({"model": tensors}, tmp_path / "model.pt")
    for name, ema, holder, wanted in (
        ("both.pt", False, "model", tensors),
        ("both.pt", True, "ema", average),
        ("average.pt", False, "ema", average),
    ):
        read = read_gpt_weights(tmp_path / name, ema=ema)
        assert f"{name} ({holder!r} in it): GPT-demo, text 6 x 16, 50 codes" in read.says
        assert torch.equal(read.tensors["norm.weight"], wanted["norm.weight"])
    with pytest.raises(WeightsError, match=r"model\.pt holds no running average"):
        read_gpt_weights(tmp_path / "model.pt", ema=True)


def test_our_own_files_say_what_they_are(tensors, tmp_path):
    facts = GPTFacts("GPT-demo", "text", 50, 6, 16, grid=GRID, rope_cond="identity", text="hashed words", step=7)
    folder = tmp_path / "checkpoints" / "0000007"
    folder.mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").write_text("0000007\n")
    save_file(tensors, folder / "model.safetensors", facts.header())
    read = read_gpt_weights(tmp_path / "checkpoints")
    assert (read.path, read.facts) == (folder / "model.safetensors", facts)
    assert read.facts.spec().grid == GRID
    assert read.facts.spec(grid=8, rope_cond="zero") == replace(read.facts.spec(), grid=8, rope_cond="zero")
    with pytest.raises(WeightsError, match=r"no weights at .* \(ema\.safetensors\)"):
        read_gpt_weights(folder, ema=True)
    save_file(tensors, folder / "ema.safetensors", facts.header())
    assert find_weights(folder, ema=True) == folder / "ema.safetensors"
    assert read_gpt_weights(folder, ema=True).facts == facts
    save_file(tensors, folder / "model.safetensors", {"tessera": json.dumps({"rope_cond": "one", "grid": 4})})
    with pytest.raises(WeightsError, match="rope_cond 'one'"):
        read_gpt_weights(folder)


def test_checkpoints_of_before_headers_are_known_by_their_state(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    state = {
        "step": 3,
        "text": "hashed words",
        "train": {"model": "GPT-demo", "rope_cond": "identity"},
        "tokenizer": {"name": "VQ-demo", "grid": GRID},
    }
    write_json(tmp_path / "state.json", state, sealed=True)
    facts = read_gpt_weights(tmp_path).facts
    assert (facts.grid, facts.rope_cond, facts.step, facts.text) == (GRID, "identity", 3, "hashed words")
    (tmp_path / "state.json").write_text("{}")  # another tool's
    assert read_gpt_weights(tmp_path).facts.grid is None


def test_what_is_no_gpt_is_refused(tensors, tmp_path):
    few = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.3.")}
    for name, content, says in (
        ("vq.pt", {"encoder.conv_in.weight": torch.zeros(3)}, "no GPT of LlamaGen's kind: no table 'tok_embeddings"),
        ("short.pt", few, "3 layers of width 192, wanted one of GPT-B 12 x 768"),
        ("twice.pt", {"module.a": torch.zeros(1), "a": torch.zeros(1)}, "2 tensors, of which only 1 have names"),
        ("nan.pt", {**tensors, "norm.weight": torch.full((192,), float("nan"))}, "hold NaN or infinite"),
        ("more.pt", {**tensors, "adapter": torch.zeros(1)}, "1 unexpected .adapter"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match=says):
            read_gpt_weights(tmp_path / name)
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="do not say their grid"):
        read_gpt_weights(tmp_path / "a.pt").facts.spec()
    with pytest.raises(WeightsError, match=r"no weights at 'nowhere\.pt'; wanted a checkpoint folder"):
        read_gpt_weights("nowhere.pt")


def test_weights_of_a_small_grid_run_on_a_larger_one(tensors, tmp_path):
    """A grid's angles depend on row and column alone: position (r, c) of the large grid turns as of the small."""
    torch.save(tensors, tmp_path / "a.pt")
    read = read_gpt_weights(tmp_path / "a.pt")
    small_gpt, large = (GPT(read.facts.spec(grid=side)) for side in (GRID, 2 * GRID))
    for gpt in (small_gpt, large):
        gpt.load_state_dict(read.tensors, strict=True)
    rows = torch.arange(GRID)[:, None] * 2 * GRID + torch.arange(GRID)
    for table in ("rope_cos_PR", "rope_sin_PR"):
        assert torch.equal(getattr(large, table)[PREFIX + rows.flatten()], getattr(small_gpt, table)[PREFIX:])
    codes = torch.zeros(1, (2 * GRID) ** 2, dtype=torch.long)
    features = torch.randn(1, 6, 16)
    assert large.eval().logits(codes, (features, torch.tensor([6]))).shape == (1, 64, 50)


def test_options_of_a_build_are_those_of_the_facts():
    assert build_gpt("GPT-demo", "class", 4, classes=3).spec == GPTFacts("GPT-demo", "class", 16384, classes=3).spec(4)


def test_weights_are_exported_as_llamagens_code_loads_them(tensors, tmp_path):
    save_file(tensors, tmp_path / "ours.safetensors", GPTFacts("GPT-demo", "text", 50, 6, 16).header())
    export_llamagen_pt(tmp_path / "ours.safetensors", tmp_path / "theirs.pt")
    content = torch.load(tmp_path / "theirs.pt", weights_only=True)
    assert list(content) == ["model"]
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in tensors.items())
    assert read_gpt_weights(tmp_path / "theirs.pt").facts.model == "GPT-demo"
