"""A checkpoint comes back whole, a damaged one is passed over, and weights that do not fit are refused."""

import resource

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from manifests.checksums import sha256_file
from manifests.files import out_of_room, read_json, write_json
from manifests.weights import WeightsError
from pipeline.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    not_finite,
    save_checkpoint,
    set_aside,
    sweep_checkpoints,
)
from pipeline.training.optimizer_states import Trained
from tests.support.stored_runs import memory_root


def model_and_optimizer(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, [optimizer]


def save(root, step, seed=0, keep=3):
    return save_checkpoint(root, Trained(*model_and_optimizer(seed)), {"step": step}, keep)


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "checkpoints" if request.param == "disk" else memory_root() / "checkpoints"


def files_below(folder):
    """What is there, but for empty folders, which fsspec's memory remembers."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_checkpoint_comes_back_whole(root):
    save(root, 20)
    found = latest_checkpoint(root)
    model, optimizers = model_and_optimizer(1)
    load_checkpoint(found, Trained(model, optimizers))
    wanted, wanted_optimizers = model_and_optimizer(0)
    assert found.step == 20
    assert torch.equal(model.weight, wanted.weight)
    got, kept = (o[0].state_dict()["state"][0] for o in (optimizers, wanted_optimizers))
    assert all(torch.equal(got[name], kept[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    assert (root / "latest").read_text() == "0000020\n"


def test_the_same_state_is_the_same_bytes(tmp_path):
    first, second = save(tmp_path / "a", 5), save(tmp_path / "b", 5)
    for name in ("model.safetensors", "optimizer.pt", "state.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_only_the_newest_stay(root):
    for step in (5, 100, 20, 1000):
        save(root, step, keep=2)
    assert {path.relative_to(root).parts[0] for path in files_below(root)} == {"0000100", "0001000", "latest"}
    save(root, 1000, seed=4, keep=2)  # a step saved again replaces itself
    assert latest_checkpoint(root).step == 1000


@pytest.mark.parametrize("there", ["model.safetensors", "optimizer.pt"])
def test_a_store_shows_no_checkpoint_before_its_state_is_there(there, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    root = memory_root()
    save(root, 1)
    (root / "0000002" / there).write_bytes(b"an upload that was killed")
    sweep_checkpoints(root)
    assert latest_checkpoint(root).step == 1
    assert {path.relative_to(root).parts[0] for path in files_below(root)} == {"0000001", "latest"}
    assert capsys.readouterr().err == ""
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_folder_is_set_aside_whole(root):
    save(root / "checkpoints", 1)
    save(root / "checkpoints", 2)
    before = {path.relative_to(root).as_posix(): path.read_bytes() for path in files_below(root)}
    aside = root.with_name("aside")
    set_aside(root, aside)
    assert files_below(root) == []
    after = {path.relative_to(aside).as_posix(): path.read_bytes() for path in files_below(aside)}
    assert after == before
    assert latest_checkpoint(aside / "checkpoints").step == 2


def test_a_damaged_checkpoint_is_passed_over(root, capsys):
    save(root, 1)
    newest = save(root, 2)
    data = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(data[:-1] + b"\x7f")
    assert latest_checkpoint(root).step == 1
    assert "0000002 is damaged (model.safetensors: not the recorded sha256)" in capsys.readouterr().err
    (root / "0000001" / "state.json").unlink()
    assert latest_checkpoint(root) is None
    assert latest_checkpoint(root / "nowhere") is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, file, monkeypatch):
    """A real failed write, in safetensors and in torch: neither library raises an OSError by itself."""
    size = (save(tmp_path, 1) / file).stat().st_size
    monkeypatch.setattr("sys.dont_write_bytecode", True)  # Python keeps a cut .pyc, and fails over it ever after
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out_of_room(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000001", "latest"]
    (tmp_path / ".tmp-1-a-0000002").mkdir()  # what a killed attempt leaves
    sweep_checkpoints(tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))


def test_another_optimizer_is_refused(tmp_path):
    save(tmp_path, 1)
    model, optimizers = model_and_optimizer()
    with pytest.raises(WeightsError, match="does not fit this recipe's optimizer"):
        load_checkpoint(latest_checkpoint(tmp_path), Trained(model, [*optimizers, torch.optim.SGD(model.parameters())]))
    other = [torch.optim.AdamW([model.weight])]
    with pytest.raises(WeightsError, match=r"groups of \[2\] parameters, wanted \[1\]"):
        load_checkpoint(latest_checkpoint(tmp_path), Trained(model, other))


def test_rates_and_decay_are_the_recipes_and_not_the_files(tmp_path):
    save(tmp_path, 1)
    model, _ = model_and_optimizer()
    slower = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    load_checkpoint(latest_checkpoint(tmp_path), Trained(model, [slower]))
    assert (slower.param_groups[0]["lr"], slower.param_groups[0]["weight_decay"]) == (0.01, 0.5)
    assert float(slower.state[model.weight]["step"]) == 1


def test_the_running_average_has_a_file_of_its_own(root):
    model, optimizers = model_and_optimizer()
    ema = {name: parameter.detach() + 1 for name, parameter in model.named_parameters()}
    save_checkpoint(root, Trained(model, optimizers, ema), {"step": 2}, 3)
    wanted = {name: tensor.clone() for name, tensor in ema.items()}
    for average in ema.values():
        average.zero_()
    load_checkpoint(latest_checkpoint(root), Trained(model, optimizers, ema))
    assert all(torch.equal(ema[name], wanted[name]) for name in ema)
    save_checkpoint(root, Trained(model, optimizers), {"step": 3}, 3)  # from one without, it starts at the weights
    load_checkpoint(latest_checkpoint(root), Trained(model, optimizers, ema))
    assert torch.equal(ema["weight"], model.weight.detach())


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path, capsys):
    """As trainers before this one saved them: whole by their digests, and not marked as looked at."""
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    save_file({"weight": torch.full((2, 3), float("nan")), "bias": torch.ones(2)}, folder / "model.safetensors")
    state = read_json(folder / "state.json")
    digests = {**state["sha256"], "model.safetensors": sha256_file(folder / "model.safetensors")}
    write_json(folder / "state.json", {"step": 2, "sha256": digests}, sealed=True)
    assert latest_checkpoint(tmp_path).step == 1
    assert "model.safetensors holds NaN or infinite numbers in weight" in capsys.readouterr().err


def test_names_of_what_is_not_finite_are_told():
    tensors = {"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")]), "c": torch.arange(3), "d": torch.zeros(0)}
    assert not_finite(tensors) == ["b"]
    assert not_finite({}) == []
