"""pipeline/execution/cards.py: a card for each worker process, freed when it ends."""

import os
import subprocess
import sys

import pytest

from pipeline.execution import cards
from pipeline.execution.worker import RunUnit
from tests.support import steps
from tests.support.supervised import RECIPE

WORKER = """
import os, sys
from pipeline.execution.cards import claim_card
print(claim_card(), claim_card(), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a worker on a machine with these cards; all are ended."""
    started = []

    def start(listed):
        environment = {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": listed}
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, stderr=pipe, env=environment, text=True
        )
        started.append(worker)
        return worker, worker.stdout.readline().split()

    yield start
    for worker in started:
        worker.kill()
        worker.wait(60)
        for stream in (worker.stdin, worker.stdout, worker.stderr):
            stream.close()


def test_each_process_has_its_own_card_until_it_ends(start):
    (one, card), (_, other) = start("4,GPU-7/a"), start("4,GPU-7/a")
    assert (card, other) == (["4"] * 3, ["GPU-7/a"] * 3)
    one.kill()
    one.wait(60)
    assert start("4,GPU-7/a")[1] == ["4"] * 3


def test_more_processes_than_cards_share_them_in_turn_and_say_so(start):
    workers = [start("0,1") for _ in range(4)]
    assert [card for _, (card, *_) in workers] == ["0", "1", "0", "1"]
    third = workers[2][0]
    assert "all 2 GPUs of this machine have a worker: GPU 0 has 2 now" in third.communicate("", timeout=60)[1]


def test_a_machine_without_cards_gives_none(start):
    assert start("")[1] == []  # two empty texts, and the user's own


def test_only_steps_with_models_for_a_card_take_one_and_not_on_this_machines_runner(tmp_path, monkeypatch):
    claimed = []
    monkeypatch.setattr("pipeline.execution.worker.claim_card", lambda: claimed.append("claimed"))
    RunUnit(steps.Counting(RECIPE, tmp_path), "", {}).setup()
    monkeypatch.setattr(steps.Counting, "on_card", True)
    RunUnit(steps.Counting(RECIPE, tmp_path), str(tmp_path / "a.in_flight"), {}).setup()
    assert claimed == []
    RunUnit(steps.Counting(RECIPE, tmp_path), "", {}).setup()
    assert claimed == ["claimed"]


def test_after_cuda_has_started_nothing_is_claimed(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert cards.claim_card() == ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
