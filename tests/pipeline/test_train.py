"""The training command: killed, stopped, started again, on two processes, refused; what it prints and leaves."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.recipes.load import load_recipe
from pipeline.recipes.train import TrainConfig
from pipeline.train import corrupted, main, take_step
from pipeline.training.checkpoint import latest_checkpoint
from pipeline.training.distributed import Machine
from pipeline.training.job import prepare
from pipeline.training.sample_sheets import prompts
from tests.support.code_shards import row_of, write_codes, write_recipe
from tests.support.paths import ROOT
from tests.support.small_training import command
from tests.support.stored_runs import memory_root, upload

pytestmark = pytest.mark.usefixtures("small_demo")

HERE = Machine(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Models this small are faster on one thread, and do not spin against other tests' processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path):
    """A run folder with twelve pictures in two shards, and its recipe."""
    write_codes(tmp_path / "run")
    return write_recipe(tmp_path)


def words(recipe, *sets):
    return ["--recipe", str(recipe), *(word for setting in sets for word in ("--set", setting))]


def train(recipe, *sets):
    return main(words(recipe, *sets))


def folder_of(recipe, tier="pretrain"):
    return recipe.parent / "run" / "train" / tier


def weights(recipe, step):
    return (folder_of(recipe) / "checkpoints" / f"{step:07d}" / "model.safetensors").read_bytes()


def test_killed_after_four_steps_eight_are_the_same_bytes(run, tmp_path, capsys):
    """An epoch has three steps."""
    whole = write_recipe(tmp_path, tmp_path / "whole")
    write_codes(tmp_path / "whole")
    assert train(whole, "train.steps=8") == 0
    straight = (
        tmp_path / "whole" / "train" / "pretrain" / "checkpoints" / "0000008" / "model.safetensors"
    ).read_bytes()

    run = write_recipe(tmp_path)
    sets = ("train.steps=200000", "train.checkpoint_every=4", "train.keep_checkpoints=1000000")
    process = subprocess.Popen(command(*words(run, *sets)), cwd=ROOT)
    deadline = time.monotonic() + 600
    while not (folder_of(run) / "checkpoints" / "0000004" / "state.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    for later in (folder_of(run) / "checkpoints").iterdir():  # what it managed after step 4 is taken away again
        if later.name != "0000004":
            later.unlink() if later.is_file() else [file.unlink() for file in later.iterdir()] and later.rmdir()
    assert train(run, "train.steps=8") == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert weights(run, 8) == straight
    steps = [json.loads(line)["step"] for line in (folder_of(run) / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 9, 2))


def test_in_a_store_it_goes_on_to_the_same_bytes_and_leaves_the_same_files(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    stored = upload(tmp_path / "run", memory_root())
    sets = ("train.checkpoint_every=4", "train.sample_every=8", "train.log_every=2", "train.keep_checkpoints=1")
    assert train(run, "train.steps=8", *sets) == 0

    def train_there(*more):
        return main([*words(run, *sets, *more), "--out", str(stored)])

    assert (train_there("train.steps=4"), train_there("train.steps=8")) == (0, 0)
    assert f"going on from step 4 ({stored}/train/pretrain/checkpoints/0000004)" in capsys.readouterr().out
    there = stored / "train" / "pretrain"
    found = {path.relative_to(there).as_posix() for path in there.rglob("*")} - {"samples/0000004.png"}
    assert found == {path.relative_to(folder_of(run)).as_posix() for path in folder_of(run).rglob("*.*")} | {
        "checkpoints/latest"
    }
    ends = there / "checkpoints" / "0000008" / "model.safetensors"
    assert ends.read_bytes() == weights(run, 8)
    lines = [
        [(line["step"], line["loss"]) for line in map(json.loads, folder.joinpath("metrics.jsonl").open())]
        for folder in (there, folder_of(run))
    ]
    assert lines[0] == lines[1]
    assert train_there("train.steps=8", "train.lr=0.5", "train.on_change=restart") == 0
    assert stored.joinpath("train", "pretrain.old-1", "checkpoints", "0000008", "state.json").exists()
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.name.startswith("upload-")]
    assert main([*words(run), "--out", "s3:/b/run"]) == 2


def test_it_learns_and_then_has_nothing_to_do(run, capsys):
    assert train(run, "train.steps=40", *NO_DROPOUT) == 0
    losses = [json.loads(line)["loss"] for line in (folder_of(run) / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] > 6 > 5 > losses[-1]  # ln 512 is 6.2
    said = capsys.readouterr().out
    assert "12 pictures of tier 'pretrain'" in said
    assert "VQ-demo (stand-in weights)" in said
    assert "step 40/40" in said
    assert Image.open(folder_of(run) / "loss.png").size == (840, 480)
    before = weights(run, 40)
    assert train(run, "train.steps=40", *NO_DROPOUT) == 0
    assert "nothing to train: 40 of 40 steps are done" in capsys.readouterr().out
    assert weights(run, 40) == before
    assert train(run, "train.steps=40", *NO_DROPOUT, "train.lr=0.001") == 2
    assert "train.lr (0.003, now 0.001)" in capsys.readouterr().err
    state = latest_checkpoint(folder_of(run) / "checkpoints").state
    assert state["train"]["lr"] == 3e-3
    assert state["data"]["samples"] == 12
    assert state["tokenizer"]["stand_in"] is True


def test_muon_and_corrupted_codes_go_on_from_a_checkpoint(run, capsys):
    """Two steps in all: on a CPU a step of Muon, in bfloat16, takes thirty times as long as one of AdamW."""
    sets = ("train.optimizer=muon", "train.corruption=uniform")
    assert train(run, "train.steps=1", *sets) == 0
    first = load_file(folder_of(run) / "checkpoints" / "0000001" / "model.safetensors")
    assert train(run, "train.steps=2", *sets) == 0
    assert "going on from step 1" in capsys.readouterr().out
    second = load_file(folder_of(run) / "checkpoints" / "0000002" / "model.safetensors")
    assert all(bool(torch.isfinite(second[name]).all()) for name in second)
    assert not torch.equal(first["layers.0.attention.wqkv.weight"], second["layers.0.attention.wqkv.weight"])


def test_ctrl_c_saves_and_says_how_to_go_on(run, monkeypatch, capsys):
    def interrupted(job, examples):
        if job.step == 1:
            signal.raise_signal(signal.SIGINT)
        return take_step(job, examples)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("pipeline.train.take_step", interrupted)
    assert train(run, "train.steps=200000") == 130
    assert latest_checkpoint(folder_of(run) / "checkpoints").step == 2
    said = capsys.readouterr().out
    assert "stopped after step 2, which is saved; the same command goes on from there" in said
    assert signal.getsignal(signal.SIGINT) is before


def test_no_step_is_read_ahead_and_one_shard_a_window_trains_too(run):
    assert train(run, "train.prefetch=0", "train.window=1", "train.steps=8") == 0
    state = latest_checkpoint(folder_of(run) / "checkpoints").state
    assert state["step"] == 8
    assert state["pictures_read"] == 32


def test_epochs_end_the_run(run):
    torch.set_num_threads(2)
    assert train(run, "train.steps=1000", "train.epochs=2", "train.threads=1") == 0
    assert torch.get_num_threads() == 1
    assert latest_checkpoint(folder_of(run) / "checkpoints").step == 6  # 2 x 12 pictures in batches of 4


REFUSALS = [
    (["train.tier=best"], "no tier 'best' in the recipe; its tiers are pretrain, finetune"),
    (["train.tier=finetune"], "tier 'finetune' has no codes in .*; tiers with codes: pretrain"),
    (["output.root=nothing"], "no codes in nothing/codes yet: run `make pretokenize`"),
    (["train.model=GPT-Q"], "choices: GPT-B, GPT-L"),
    (
        ["train.learning_rate=1"],
        "unknown key 'train.learning_rate'; known keys of .train.: activation_c",
    ),
    (["train.captions={}"], "train.captions"),
    (["train.cooldown=0.3", "train.seconds=5"], "cooldown needs `steps`, and no `seconds`"),
    (["pretokenize.vq=VQ-8"], "tokenizer mismatch: .* made by VQ-demo .* the recipe says VQ-8"),
    (["tier.pretrain.size=128"], "are of 64 px, the recipe says 128: run `make pretokenize` again"),
    (["train.init_from=nowhere.pt"], "no weights at 'nowhere.pt'"),
    (["train.init_from=wide.safetensors"], "is GPT-demo, text 8 x 32, 50 codes, .*: vocab 50, not 512"),
]


@pytest.mark.parametrize(("sets", "says"), REFUSALS, ids=[says[:20] for _, says in REFUSALS])
def test_wrong_use_is_refused_before_any_step(run, sets, says, capsys, monkeypatch):
    from safetensors.torch import save_file

    from pipeline.gpt import build_gpt

    monkeypatch.chdir(run.parent)
    save_file(build_gpt("GPT-demo", "text", 8, vocab=50, cond_len=8, cond_dim=32).state_dict(), "wide.safetensors")
    assert train(run, *sets) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert re.search(says, said), said
    assert not folder_of(run).exists()


def test_a_damaged_shard_is_refused(run, capsys):
    shard = run.parent / "run" / "codes" / "pretrain" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:-2000])
    assert train(run) == 2
    assert "damaged shard" in capsys.readouterr().err


NO_DROPOUT = [f"train.{kind}_dropout=0" for kind in ("token", "resid", "ffn", "cond")]


def job_of(run, *sets):
    return prepare(load_recipe(run, [*NO_DROPOUT, *sets]), HERE)


def test_micro_batches_give_the_same_step(run):
    jobs = [job_of(run, f"train.micro_batch={size}") for size in (4, 3, 1)]
    losses = []
    for job in jobs:
        losses.append(float(take_step(job, job.feeder.parts(job.pictures.step(0)))[0]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) == pytest.approx(losses[2], abs=1e-5)


def test_two_processes_train_as_one(run, tmp_path, monkeypatch):
    """What torchrun tells its processes is told here: the first is this one. The second is asked for Beam too."""
    assert train(run, *NO_DROPOUT) == 0
    alone = load_file(folder_of(run) / "checkpoints" / "0000004" / "model.safetensors")
    write_codes(tmp_path / "two")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    for name, value in {**told, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    asked = [*words(run, *NO_DROPOUT), "--out", str(tmp_path / "two")]
    second = subprocess.Popen(command(*asked), cwd=ROOT, env={**os.environ, "RANK": "1", "LOCAL_RANK": "1"})
    assert main(asked) == 0
    assert second.wait(timeout=300) == 0
    two = load_file(tmp_path / "two" / "train" / "pretrain" / "checkpoints" / "0000004" / "model.safetensors")
    assert (
        max(float((alone[name] - two[name]).abs().max()) for name in alone) < 2e-3
    )  # Adam's first steps amplify the last bits
    assert np.mean([float((alone[name] - two[name]).abs().mean()) for name in alone]) < 2e-5


def test_samples_and_recall_are_drawn(run, capsys):
    sets = [
        "train.sample_every=2",
        "train.recall_pictures=3",
        "train.steps=3",
        'train.sample_prompts=["a red cat", "the moon"]',
    ]
    assert train(run, *sets) == 0
    said = capsys.readouterr().out
    assert "recall of 3 training captions: own picture nearest" in said
    assert "this is memorising, not generalising" in said
    folder = folder_of(run)
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["0000002.png", "0000003.png"]
    found = json.loads((folder / "memorised.json").read_text())
    assert found["pictures"] == 3
    assert found["chance_top1"] == pytest.approx(1 / 12)
    assert "stand-in weights" in found["drawn_by"]
    assert Image.open(folder / "memorised.png").width > 700
    assert train(run, *sets) == 0
    assert "recall: measured before" in capsys.readouterr().out
    assert train(run, *sets, "train.sample_temperature=0.5") == 0
    assert "recall of 3 training captions" in capsys.readouterr().out


def test_sampling_does_not_change_what_is_learned(run, tmp_path):
    write_codes(tmp_path / "quiet")
    assert train(run, "train.sample_every=1", "train.steps=2", 'train.sample_prompts=["a red cat"]') == 0
    assert train(run, "train.steps=2", f"output.root={tmp_path / 'quiet'}") == 0
    quiet = tmp_path / "quiet" / "train" / "pretrain" / "checkpoints" / "0000002" / "model.safetensors"
    assert weights(run, 2) == quiet.read_bytes()


def test_prompts_are_the_first_captions_unless_named(run):
    job = job_of(run)
    assert len(prompts(job)) == 8
    assert all(" number " in prompt for prompt in prompts(job))
    assert prompts(job_of(run, 'train.sample_prompts=["x"]')) == ["x"]


def test_corruption_keeps_places_and_takes_from_others():
    torch.manual_seed(0)
    codes = (torch.arange(64)[:, None] * 100 + torch.arange(50)).long()  # row r, place p: 100 r + p
    read = corrupted(codes)
    assert torch.equal(read % 100, codes % 100)
    rates = (read != codes).double().mean(1)
    assert 0.4 < float(rates.mean()) < 0.6
    assert float(rates.min()) < 0.1
    assert float(rates.max()) > 0.9
    assert torch.equal(corrupted(codes[:1]), codes[:1])


def test_defaults_are_llamagens_but_for_rope_cond():
    config = TrainConfig()
    assert (config.model, config.lr, config.batch, config.betas) == ("GPT-XL", 1e-4, 256, (0.9, 0.95))
    assert (config.weight_decay, config.clip, config.epochs, config.rope_cond) == (0.05, 1.0, 300, "identity")
    assert {config.token_dropout, config.resid_dropout, config.ffn_dropout, config.cond_dropout} == {0.1}
    assert (config.optimizer, config.corruption, config.cooldown, config.text) == ("adamw", "none", 0.0, "t5")
    assert (config.max_pictures, config.recall_pictures) == (None, 0)


def test_the_trainers_config_imports_no_torch():
    check = "import sys, pipeline.recipes.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_row_numbers_are_uids():
    assert row_of(3)["uid"].hex() == f"{3:032x}"


def test_t5_features_train_too(run, tmp_path, capsys):
    from tests.support.tiny_t5 import word_t5

    weights = word_t5(tmp_path / "t5")
    assert (
        train(
            run,
            "train.text=t5",
            f"train.text_weights={weights}",
            "train.cond_dim=16",
            "train.cond_len=120",
            "train.steps=2",
        )
        == 0
    )
    assert "text T5 " in capsys.readouterr().out
    assert train(run, "train.text=t5", "train.text_weights=nowhere/t5") == 2
    assert "weights of T5" in capsys.readouterr().err
