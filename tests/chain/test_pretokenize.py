"""Ten-crops, size caps and stored T5 features through the command line, on a filtered run that is made once."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from PIL import Image

from manifests.manifest import Manifest
from manifests.shards import read_shard
from manifests.weights import WeightsError
from pipeline.cli.run import run_stages
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage
from tests.support.commands import run_here, run_with_workers
from tests.support.keep_runs import files_of, make_run
from tests.support.small_web import write_input, write_recipe
from tokenize_shards.catalog import DEMO_WEIGHTS, vq_spec
from tokenize_shards.crops import CropPlan, crops_of
from tokenize_shards.images import to_tensor
from tokenize_shards.samples import find_shards, read_samples
from tokenize_shards.text import T5Features
from tokenize_shards.vq import VQ, build_vq, load_vq

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filtered(tmp_path_factory, web):
    folder = tmp_path_factory.mktemp("filtered")
    return folder / "recipe.toml", make_run(folder, web, "filter")


def codes(filtered, out, *sets):
    recipe, root = filtered
    if not out.exists():
        shutil.copytree(root, out)
    done = run_here(
        recipe, "pretokenize", "--out", out, *(word for setting in sets for word in ("--set", f"pretokenize.{setting}"))
    )
    samples = {
        key: sample for path in sorted((out / "codes" / "pretrain").glob("*.tar")) for key, sample in read_shard(path)
    }
    return done.stdout + done.stderr, samples


def test_ten_crops_are_those_of_the_stored_picture(filtered, tmp_path):
    said, samples = codes(filtered, tmp_path / "run", "crop=ten", "scales=[1.05, 1.1]")
    assert "pretrain: ten_1.05+ten_1.1 crops by VQ-demo, fp32: 100.00% of codes as in fp32" in said
    pictures = {
        key: sample["jpg"]
        for path in sorted((tmp_path / "run" / "pairs").glob("*.tar"))
        for key, sample in read_shard(path)
    }
    vq = load_vq("VQ-demo", "stand-in").vq
    for key in sorted(samples)[:2]:
        got, note = np.load(io.BytesIO(samples[key]["codes.npy"])), json.loads(samples[key]["json"])
        assert (got.shape, got.dtype) == ((20, 64), np.uint16)
        cut = list(crops_of(Image.open(io.BytesIO(pictures[key])), 64, CropPlan("ten", (1.05, 1.1))))
        assert note["crops"] == [crop.note() for crop, _ in cut]
        for one in (0, 7, 19):
            assert np.array_equal(vq.encode(to_tensor([cut[one][1]]))[0].numpy(), got[one])
    facts = Manifest.read(tmp_path / "run" / "manifests" / "pretokenize.json").facts["codes"]["pretrain"]
    assert facts["agreement"] == {"precision": "fp32", "share": 1.0, "codes": 8 * 64}
    assert facts["crop"] == "ten_1.05+ten_1.1"


def test_shards_stay_below_their_cap_and_hold_the_same_samples(filtered, tmp_path):
    _, whole = codes(filtered, tmp_path / "whole")
    _, parts = codes(filtered, tmp_path / "parts", "shard_bytes=30000")
    assert parts == whole
    assert list(parts) == list(whole)  # the packed order too
    tars = sorted((tmp_path / "parts" / "codes" / "pretrain").glob("*.tar"))
    assert len(tars) > len(list((tmp_path / "whole" / "codes" / "pretrain").glob("*.tar")))
    assert max(path.stat().st_size for path in tars) <= 30000


def test_features_of_one_caption_go_into_the_shards(filtered, tmp_path, tiny_t5):
    features = ("t5=precomputed", f"t5_weights={tiny_t5}", "t5_dtype=bf16")
    said, samples = codes(filtered, tmp_path / "run", *features)
    assert "t5: features of 42 captions will take about" in said  # 21 pairs in each of two tiers
    encoder = T5Features(str(tiny_t5))
    shards = find_shards(tmp_path / "run" / "codes", "pretrain")
    read = [sample for shard in shards for sample in read_samples(shard)]
    assert len(read) == len(samples) == 21
    for sample in read:
        wanted = encoder.features([dict(sample.captions)["alt"]])[0]
        assert sample.features_of == "alt"
        assert sample.features.shape == wanted.shape
        assert np.allclose(sample.features, wanted, atol=0.02)
    parts = list(webdataset.WebDataset([str(shards[0].path)], shardshuffle=False))
    assert parts[0].keys() == {"__key__", "__url__", "__local_path__", "codes.npy", "json", "t5.npy"}
    encoded = [path.stat().st_mtime_ns for path in sorted((tmp_path / "run" / "codes" / "encoded").glob("*.parquet"))]
    said, again = codes(filtered, tmp_path / "run")  # online again: packs anew, encodes nothing
    assert not list((tmp_path / "run" / "codes" / "t5").glob("*.parquet"))
    assert all("t5.npy" not in sample for sample in again.values())
    assert [
        path.stat().st_mtime_ns for path in sorted((tmp_path / "run" / "codes" / "encoded").glob("*.parquet"))
    ] == encoded


def test_a_pair_without_the_caption_is_counted_and_has_no_features(filtered, tmp_path, tiny_t5):
    said, samples = codes(
        filtered, tmp_path / "run", "t5=precomputed", f"t5_weights={tiny_t5}", "t5_caption=top_caption"
    )
    assert "pretrain: T5 features of caption 'top_caption': 0, 21 without (missing_value)" in said
    facts = Manifest.read(tmp_path / "run" / "manifests" / "pretokenize.json").facts["t5"]["pretrain"]
    assert facts == {"caption": "top_caption", "with": 0, "without": {"missing_value": 21}}
    assert all("t5.npy" not in sample for sample in samples.values())
    tables = [pq.read_table(path) for path in sorted((tmp_path / "run" / "codes" / "t5").glob("pretrain-*.parquet"))]
    assert set(pa.concat_tables(tables)["reason"].to_pylist()) == {"missing_value"}


def test_bf16_of_real_weights_is_refused_below_the_limit_and_float32_goes_on(filtered, tmp_path):
    recipe, root = filtered
    shutil.copytree(root, tmp_path / "run")
    shutil.copy(DEMO_WEIGHTS, tmp_path / "vq.safetensors")
    weights = f"weights={tmp_path / 'vq.safetensors'}"
    sets = (
        "--set",
        f"pretokenize.{weights}",
        "--set",
        "pretokenize.precision=bf16",
        "--set",
        "pretokenize.min_agreement=1.0",
    )
    done = run_with_workers(recipe, "pretokenize", "--out", tmp_path / "run", *sets, code=2)
    assert [line.split(":")[0] for line in done.stderr.splitlines() if "worker" in line or "rror" in line] == ["error"]
    assert "wanted pretokenize.min_agreement = 100.00%; take precision 'tf32' or 'fp32'" in done.stderr
    assert "worker" not in done.stderr
    assert not (tmp_path / "run" / "codes").exists()
    said, samples = codes(filtered, tmp_path / "run", weights)
    assert "pretrain: center crops by VQ-demo, fp32: 100.00% of codes as in fp32" in said
    assert len(samples) == 21
    (tmp_path / "vq.safetensors").unlink()  # what packs again needs no tokenizer, what encodes does
    said, again = codes(filtered, tmp_path / "run", weights, "shard_rows=5")
    assert again == samples
    assert "encode" not in said.split("runs again: ")[1].split("\n")[0]
    more = ("--set", f"pretokenize.{weights}", "--set", "pretokenize.flip=true")
    assert "no file at" in run_here(recipe, "pretokenize", "--out", tmp_path / "run", *more, code=2).stderr


def altered(folder, kind):
    """Write a tokenizer's file that is not what VQ-demo wants; return its path."""
    state = build_vq("VQ-demo").state_dict()
    if kind == "another's":
        state = VQ(replace(vq_spec("VQ-demo"), channels=8)).state_dict()
    if kind == "NaN":
        state["quant_conv.bias"][3] = float("nan")
    torch.save({"model": state, "args": Path("x")} if kind == "code" else state, folder / "vq.pt")
    if kind == "cut short":
        (folder / "vq.pt").write_bytes((folder / "vq.pt").read_bytes()[:100_000])
    return folder / "vq.pt"


@pytest.mark.parametrize("kind", ["another's", "NaN", "code", "cut short"])
def test_a_tokenizers_file_that_does_not_fit_is_refused_before_anything_is_written(filtered, tmp_path, kind):
    recipe, root = filtered
    shutil.copytree(root, tmp_path / "run")
    before = files_of(tmp_path / "run")
    asked = load_recipe(
        recipe, [f"output.root='{tmp_path / 'run'}'", f"pretokenize.weights='{altered(tmp_path, kind)}'"]
    )
    for dry_run in (True, False):
        with pytest.raises(WeightsError, match=r"pretokenize\.weights, or write 'stand-in'"):
            run_stage(asked, "pretokenize", StageOptions(dry_run=dry_run))
    assert files_of(tmp_path / "run") == before
    assert not list((tmp_path / "run").glob("logs/workers/encode*"))


def test_all_stages_ask_for_the_tokenizer_before_the_first_one_works(web, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run")
    for weights, says in (
        (tmp_path / "none.pt", "no file at"),
        (altered(tmp_path, "NaN"), "NaN or infinite numbers in 1 tensors"),
    ):
        with pytest.raises(WeightsError, match=says):
            run_stages(load_recipe(recipe, [f"pretokenize.weights='{weights}'"]), tuple(STAGES), StageOptions())
    assert not (tmp_path / "run").exists()


def test_weights_refused_ahead_leave_the_folders_recipe_as_it_was(filtered, tmp_path, monkeypatch):
    recipe, root = filtered
    shutil.copytree(root, tmp_path / "run")
    before = (tmp_path / "run" / "recipe.toml").read_bytes()

    def refuse(steps):
        raise RecipeError("weights of T5 do not fit")

    monkeypatch.setattr("pipeline.stages.run.preflight", refuse)
    with pytest.raises(RecipeError, match="do not fit"):
        run_stage(
            load_recipe(recipe, [f"output.root='{tmp_path / 'run'}'", "pretokenize.seed=5"]),
            "pretokenize",
            StageOptions(),
        )
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == before
