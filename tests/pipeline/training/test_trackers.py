"""Figures go to TensorBoard and W&B by name; what is not installed is said."""

import sys
from types import SimpleNamespace

import pytest

from pipeline.recipes.train import TrainConfig
from pipeline.training.trackers import Trackers

LINE = {"step": 7, "loss": 1.5, "mfu": None, "by_source": {"alt": 2.0}}


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_has_each_number_by_its_name_and_a_resumed_run_has_no_step_twice(tmp_path):
    first = Trackers(TrainConfig(), tmp_path, 0)
    for step in (2, 4, 6):
        first.add({"step": step, "loss": float(step)})
    first.close()
    again = Trackers(TrainConfig(), tmp_path, 4)
    again.add({**LINE, "step": 6})
    again.close()
    assert scalars(tmp_path) == {"loss": [(2, 2.0), (4, 4.0), (6, 1.5)], "by_source/alt": [(6, 2.0)]}


def test_what_is_not_installed_is_said_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    trackers = Trackers(TrainConfig(wandb="mine"), tmp_path, 0)
    assert [note.split(":")[0] for note in trackers.notes] == [
        "no figures for TensorBoard",
        "no figures for Weights & Biases",
    ]
    trackers.add(LINE)
    trackers.close()
    assert list(tmp_path.iterdir()) == []


def test_wandb_gets_the_same_run_when_it_is_gone_on_with(tmp_path, monkeypatch):
    calls, logged = [], []
    run = SimpleNamespace(log=lambda figures, step: logged.append((step, figures)), finish=lambda: logged.append("end"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: calls.append(given) or run))
    for _ in range(2):
        trackers = Trackers(TrainConfig(wandb="mine", tensorboard=False), tmp_path, 0)
        trackers.add(LINE)
        trackers.close()
    assert logged == [(7, {"loss": 1.5, "by_source/alt": 2.0}), "end"] * 2
    assert calls[0]["project"] == "mine"
    assert calls[0]["id"] == calls[1]["id"]
    assert calls[0]["config"]["batch"] == 256


def test_wandb_that_cannot_begin_is_said_and_stops_nothing(tmp_path, monkeypatch):
    class Unusable(Exception):
        pass

    def init(**given):
        raise Unusable("No API key configured.")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=Unusable))
    trackers = Trackers(TrainConfig(wandb="mine", tensorboard=False), tmp_path / "train", 0)
    trackers.add(LINE)
    trackers.close()
    assert trackers.notes == [
        "no figures for Weights & Biases: No API key configured; WANDB_MODE=offline needs no account"
    ]


@pytest.mark.parametrize("wanted", [False, True])
def test_neither_is_written_unless_wanted(tmp_path, wanted):
    Trackers(TrainConfig(tensorboard=wanted), tmp_path, 0).close()
    assert (tmp_path / "tensorboard").exists() is wanted
