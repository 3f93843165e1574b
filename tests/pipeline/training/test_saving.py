"""Two processes, whole and spread, learn as one does; what they save goes on at any number of processes, or is not
there."""

import json

import pytest
import torch
from safetensors.torch import load_file

from manifests.files import read_json
from pipeline.training.checkpoint import latest_checkpoint
from pipeline.training.saving import CheckpointError, Saver
from tests.support.spread_training import HERE, STEPS, Run
from tests.support.stored_runs import memory_root
from tests.support.two_processes import run_two


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes did, after one took two steps: the folder, and what each told."""
    folder = tmp_path_factory.mktemp("two")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Run().take(0, 1).save(folder / "one", 2)
    run_two("tests.support.spread_training", folder)
    yield folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone():
    return Run().take(*range(STEPS))


def near(losses, expected, within=1e-5):
    return max(abs(a - b) for a, b in zip(losses, expected, strict=True)) < within


def test_whole_and_spread_weights_give_the_same_losses(two, alone):
    """The spread run adds up two parts a step without exchange, and computes its layers twice."""
    for told in two[1]:
        assert near(told["whole"], told["spread"])
        assert near(told["whole"], alone.losses)
        assert told["norms"] == [pytest.approx(alone.norm, rel=1e-5)] * 2


def test_one_then_two_then_one_process_learn_the_same(two, alone):
    folder, told = two
    assert near(told[0]["later"], alone.losses[2:4])
    last = Run().load(folder / "two").take(4, 5)
    assert near(last.losses, alone.losses[4:])
    for name, tensor in alone.gpt.state_dict().items():
        assert torch.allclose(last.gpt.state_dict()[name], tensor, atol=2e-4), name


def test_spread_checkpoints_are_tensors_and_numbers_and_weights_by_llamagens_names(two):
    folder, told = two
    assert sorted(path.name for path in (folder / "spread").iterdir()) == ["0000005", "0000006", "latest"]
    checkpoint = folder / "spread" / "0000006"
    files = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    parts = {f"optimizer/shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)}
    assert files == {"model.safetensors", "ema.safetensors", "state.json", *parts}
    state = read_json(checkpoint / "state.json")
    assert set(state["sha256"]) == files - {"state.json"}
    assert state["optimizers"] == [{"slots": ["exp_avg", "exp_avg_sq"], "numbers": {"step": 6.0}}]
    weights = load_file(checkpoint / "model.safetensors")
    assert set(weights) == set(Run().gpt.state_dict())
    assert told[0]["again"] == told[1]["again"] == pytest.approx(float(weights["norm.weight"].sum()))
    average = load_file(folder / "two" / "0000004" / "ema.safetensors")
    assert told[0]["copy"] == pytest.approx(float(average["norm.weight"].sum()))
    assert told[1]["copy"] is None
    damaged = next(iter(checkpoint.glob("optimizer/*2-model*")))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert latest_checkpoint(folder / "spread").step == 5


def test_a_save_that_fails_is_said_by_every_process_and_nothing_broken_is_saved(two):
    folder, told = two
    failures = [each["failures"] for each in told]
    assert all(len(each) == 2 for each in failures)
    assert "FileExistsError" in failures[0][0] or "NotADirectoryError" in failures[0][0]
    assert "another process could not write its part" in failures[1][0]
    assert "step 2 holds NaN or infinite numbers (another process's part)" in failures[0][1]
    assert "step 2 holds NaN or infinite numbers (norm.weight)" in failures[1][1]
    assert not (folder / "broken").exists()
    assert not list(folder.rglob(".tmp*"))


@pytest.fixture
def group():
    """A process group of this process alone ends with the test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["disk", "memory"])
@pytest.mark.usefixtures("group")
def test_one_process_saves_spread_checkpoints_beside_training(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    root = tmp_path / "checkpoints" if kind == "disk" else memory_root() / "checkpoints"
    run = Run(parallel="fsdp").take(0)
    saved = run.gpt.norm.weight.full_tensor().clone()
    with Saver(root, HERE, keep=1) as saver:
        saver.save(run.trained, {"step": 1})
        run.take(1)  # changes the weights while they are written
        saver.check()
    assert torch.equal(load_file_of(root / "0000001" / "model.safetensors", tmp_path)["norm.weight"], saved)
    assert [path.name for path in root.glob("0*")] == ["0000001"]
    again = Run(parallel="fsdp").load(root).take(1)
    assert torch.equal(again.gpt.norm.weight.full_tensor(), run.gpt.norm.weight.full_tensor())
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".tmp", "upload-"))]


def load_file_of(path, folder):
    (folder / "copy").write_bytes(path.read_bytes())
    return load_file(folder / "copy")


def test_what_is_not_finite_is_named_and_not_saved(tmp_path):
    run = Run().take(0)
    optimizer = run.trained.optimizers[0]
    optimizer.state[run.gpt.norm.weight]["exp_avg"][3] = float("inf")
    with pytest.raises(CheckpointError, match=r"step 1 holds NaN or infinite numbers \(norm\.weight\.exp_avg \(opt"):
        run.save(tmp_path / "a", 1)
    optimizer.state[run.gpt.norm.weight]["exp_avg"][3] = 0.0
    run.trained.ema["norm.weight"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"\(norm\.weight \(average\)\)"):
        run.save(tmp_path / "a", 1)
    assert not (tmp_path / "a").exists()
