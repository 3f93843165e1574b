"""A checkpoint comes back whole, a damaged one is passed over, and weights that do not fit are refused."""

import argparse
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from manifests.files import out_of_room
from manifests.weights import WeightsError
from pipeline.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    set_aside,
    start_from,
    sweep_checkpoints,
)
from tests.support.stored_runs import memory_root, upload


def model_and_optimizer(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, [optimizer]


def save(root, step, seed=0, keep=3):
    return save_checkpoint(root, *model_and_optimizer(seed), {"step": step}, keep)


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
    load_checkpoint(found, model, optimizers)
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


def test_weights_start_a_new_run_from_every_kind_of_file(tmp_path):
    tensors = {"weight": torch.full((2, 3), 2.0), "bias": torch.ones(2)}
    args = argparse.Namespace(lr=1e-4)
    torch.save(
        {"model": {**tensors, "freqs_cis": torch.zeros(4)}, "optimizer": {}, "steps": 7, "args": args},
        tmp_path / "released.pt",
    )
    torch.save(tensors, tmp_path / "flat.pt")
    save_file(tensors, tmp_path / "plain.safetensors")
    folder = save(tmp_path / "checkpoints", 3)
    for source, weight in (
        ("released.pt", tensors["weight"]),
        ("flat.pt", tensors["weight"]),
        ("plain.safetensors", tensors["weight"]),
        ("checkpoints", load_file(folder / "model.safetensors")["weight"]),
        ("checkpoints/0000003", load_file(folder / "model.safetensors")["weight"]),
    ):
        model = nn.Linear(3, 2)
        assert start_from(model, str(tmp_path / source)).is_file()
        assert torch.equal(model.weight, weight)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "flat.pt").read_bytes()[:-100])
    stored = upload(tmp_path, memory_root())
    for source in ("released.pt", "checkpoints", "checkpoints/0000003"):
        assert start_from(nn.Linear(3, 2), str(stored / source)).is_file()
    with pytest.raises(WeightsError, match=f"^{stored}/cut.pt: wanted a checkpoint"):
        start_from(nn.Linear(3, 2), str(stored / "cut.pt"))


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_unfit_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(3, 2)
    torch.save({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, "wide.pt")
    torch.save({"weight": torch.ones(2, 3), "scale": torch.ones(2)}, "other.pt")
    Path("evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for source, says in (
        ("wide.pt", r"got \(2, 4\), wanted \(2, 3\)"),
        ("other.pt", "missing .bias.*unexpected .scale"),
        ("evil.pt", "evil.pt"),
        ("nowhere.pt", "no weights at 'nowhere.pt'; wanted a checkpoint folder"),
    ):
        with pytest.raises(WeightsError, match=says):
            start_from(model, source)
    assert not Path("evil").exists()


def test_another_optimizer_is_refused(tmp_path):
    save(tmp_path, 1)
    model, optimizers = model_and_optimizer()
    with pytest.raises(WeightsError, match="does not fit this recipe's optimizer"):
        load_checkpoint(latest_checkpoint(tmp_path), model, [*optimizers, torch.optim.SGD(model.parameters())])
