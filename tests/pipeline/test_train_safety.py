"""What goes wrong in training ends it or is skipped, with words; the last good checkpoint stands; what a run measures,
averages and takes is told."""

import json
import os
import re
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manifests.files import read_json
from pipeline.train import main
from pipeline.training.checkpoint import latest_checkpoint
from pipeline.training.text_features import HashedWords
from tests.support.code_shards import write_codes, write_recipe
from tests.support.paths import ROOT
from tests.support.small_training import command
from tests.support.two_processes import free_port, told

pytestmark = pytest.mark.usefixtures("small_demo")
features = HashedWords.features


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path):
    write_codes(tmp_path / "run")
    return write_recipe(tmp_path)


def words(recipe, *sets):
    return ["--recipe", str(recipe), *(word for each in sets for word in ("--set", f"train.{each}"))]


def folder_of(recipe):
    return recipe.parent / "run" / "train" / "pretrain"


def lines_of(recipe):
    return [json.loads(line) for line in (folder_of(recipe) / "metrics.jsonl").read_text().splitlines()]


def test_a_rate_of_1e30_ends_the_run_and_the_last_good_checkpoint_is_taken_up(run, capsys):
    assert main(words(run, "steps=4")) == 0
    wild = ("steps=100", "lr=1e30", "max_skipped=5", "checkpoint_every=3", "on_change=continue")
    assert main(words(run, *wild)) == 1
    said = capsys.readouterr().err
    assert re.search(r"error: 5 steps in a row were skipped, up to about step \d+: 5 in all for a loss", said)
    assert latest_checkpoint(folder_of(run) / "checkpoints").step == 4
    assert main(words(run, "steps=6")) == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6]


def test_a_feature_that_is_no_number_costs_its_step_alone(run, monkeypatch, capsys):
    def broken(self, captions):
        return [
            np.full_like(array, np.nan) if caption.endswith("number 3") else array
            for caption, array in zip(captions, features(self, captions), strict=True)
        ]

    monkeypatch.setattr(HashedWords, "features", broken)
    assert main(words(run, "steps=9", "cond_dropout=0", "checkpoint_every=1", "keep_checkpoints=100")) == 0
    assert "skipped 3 (3 not finite, 0 spikes)" in capsys.readouterr().out
    checkpoints = folder_of(run) / "checkpoints"
    state = latest_checkpoint(checkpoints).state
    assert state["watch"]["counts"][:3] == [6, 3, 0]  # an epoch has three steps, one of them with picture 3
    weights = load_file(checkpoints / "0000009" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    saved = {int(path.name) for path in checkpoints.glob("0*")}
    assert 6 <= len(saved) <= 7  # not after a step that was skipped, but for the last
    assert lines_of(run)[-1]["skipped"] == 3


def test_norms_that_leap_end_the_run_once_there_are_enough_to_compare_with(run, capsys):
    low = ("steps=60", "spike=0.01", "max_skipped=3", "checkpoint_every=10")  # every norm is above a hundredth
    assert main(words(run, *low)) == 1
    said = capsys.readouterr().err
    assert "0 in all for a loss or gradient that is not finite, 3 for a norm above 0.01 running medians" in said
    assert latest_checkpoint(folder_of(run) / "checkpoints").step == 30
    assert main(words(run, "steps=34", "spike=0", "on_change=continue")) == 0
    assert [line["step"] for line in lines_of(run)][-2:] == [32, 34]


def test_one_process_alone_without_numbers_ends_both_and_nothing_is_saved(run, monkeypatch, capsys):
    port = free_port()
    asked = words(run, "max_skipped=3", "steps=50", "cond_dropout=0", "checkpoint_every=2")
    second = subprocess.Popen(command(*asked), cwd=ROOT, env={**os.environ, **told(1, port)}, stderr=subprocess.PIPE)
    for name, value in told(0, port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        HashedWords, "features", lambda self, captions: [np.full((1, self.dim), np.nan, np.float32)] * len(captions)
    )
    assert main(asked) == 1
    assert "3 steps in a row were skipped" in capsys.readouterr().err
    assert b"3 steps in a row were skipped" in second.communicate(timeout=300)[1]
    assert second.returncode == 1
    assert not (folder_of(run) / "checkpoints").exists()


MEASURED = ("validation=0.3", "validate_every=3", "ema=0.9", "warmup=3", "schedule=cosine")


def test_what_is_held_out_is_measured_and_an_average_is_kept(run, capsys):
    assert main(words(run, *MEASURED, "tensorboard=true", "steps=8")) == 0
    said = capsys.readouterr().out
    assert "memory of each process (one process): about" in said
    assert re.search(r"step 8  validation \d\.\d+ on \d pictures: alt ", said)
    assert re.search(r"in all: loss 6\.\d+ at step 2, \d\.\d+ at 8\n  validation .* at best", said)
    assert [line["step"] for line in lines_of(run) if "validation_loss" in line] == [3, 6, 8]
    assert list((folder_of(run) / "tensorboard").glob("events.*"))
    weights, average = (
        load_file(folder_of(run) / "checkpoints" / "0000008" / f"{name}.safetensors") for name in ("model", "ema")
    )
    assert set(weights) == set(average)
    assert not torch.equal(weights["norm.weight"], average["norm.weight"])


def test_a_run_in_two_pieces_is_the_same_bytes_with_average_and_watch(run, tmp_path):
    whole = write_recipe(tmp_path, tmp_path / "whole")
    write_codes(tmp_path / "whole")
    keys = ("ema=0.9", "warmup=3", "token_dropout=0.1")
    assert main(words(whole, *keys, "steps=10")) == 0
    run = write_recipe(tmp_path)
    assert main(words(run, *keys, "steps=5")) == 0
    assert main(words(run, *keys, "steps=10")) == 0
    folders = [
        root / "train" / "pretrain" / "checkpoints" / "0000010" for root in (tmp_path / "run", tmp_path / "whole")
    ]
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"):
        assert folders[0].joinpath(name).read_bytes() == folders[1].joinpath(name).read_bytes(), name
    assert read_json(folders[0] / "state.json")["gpt"]["grid"] == 8


def test_a_dry_run_says_what_a_run_takes_and_leaves_nothing(run, capsys):
    assert main([*words(run, "steps=9"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "memory of each process" in said
    assert "9 steps of 4 pictures; how long they take is known after the first progress line" in said
    assert not folder_of(run).exists()
    assert main(["--recipe", "laion_coco", "--dry-run", "--gpus", "8", "--gpu-memory", "80"]) == 0
    assert "how many steps there are is not known yet: no codes in" in capsys.readouterr().out
    big = ["--recipe", "laion_coco", "--set", "train.model=GPT-7B", "--dry-run", "--gpus", "1", "--gpu-memory", "80"]
    assert main(big) == 2
    assert re.search(r"this run takes about \d+ GB of each card, which has 80 GB.*this fits", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main([*words(run), "--gpus", "8"])
