"""pipeline/execution/environment.py: a worker computes with one thread, on its own GPU, and asks no model hub."""

import os

import pytest

from pipeline.execution.environment import gpus, worker_environment


@pytest.fixture(autouse=True)
def a_machine_with_other_settings(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "OMP_NUM_THREADS": "16", "CUDA_VISIBLE_DEVICES": ""})


def test_numbers_do_not_depend_on_the_machines_threads():
    environment = worker_environment(0)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    assert {environment[name] for name in names} == {"1"}
    assert environment["PATH"] == "/bin"
    assert os.environ["OMP_NUM_THREADS"] == "16"  # the supervisor's own stays


def test_the_hub_is_asked_only_where_the_user_says_so(monkeypatch):
    assert worker_environment(0)["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "0")
    assert worker_environment(0)["HF_HUB_OFFLINE"] == "0"


@pytest.mark.parametrize(("listed", "cards"), [("0,1", ["0", "1"]), ("3", ["3"]), ("", []), (" ", [])])
def test_gpus_are_those_that_the_user_lets_be_seen(monkeypatch, listed, cards):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", listed)
    assert gpus() == cards


def test_without_that_setting_gpus_are_those_of_the_driver(monkeypatch, tmp_path):
    monkeypatch.delitem(os.environ, "CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("pipeline.execution.environment.Path", lambda path: tmp_path / path.lstrip("/"))
    assert gpus() == []
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(0)
    for bus in ("0000:b1:00.0", "0000:17:00.0"):
        (tmp_path / "proc/driver/nvidia/gpus" / bus).mkdir(parents=True)
    assert gpus() == ["0", "1"]


def test_workers_share_out_the_gpus_in_turn(monkeypatch):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "4,7")
    assert [worker_environment(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["4", "7", "4"]
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "")
    assert worker_environment(1)["CUDA_VISIBLE_DEVICES"] == ""  # none, as the user said
