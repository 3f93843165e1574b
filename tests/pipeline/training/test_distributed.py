"""Who a process is among others, and what it does before and beside them."""

import os
import sys

import pytest
import torch
from torch import nn

from pipeline.training.distributed import Machine, this_machine, wrapped

CPU = torch.device("cpu")


@pytest.fixture
def joined(monkeypatch):
    """Return the backends of the groups that are joined; no group is."""
    backends = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group", backends.append)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return backends


def test_alone_without_torchrun(joined):
    assert this_machine() == Machine(0, 1, CPU)
    assert joined == []


def test_one_of_four_on_two_hosts(joined, monkeypatch):
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert this_machine() == Machine(3, 4, CPU)
    assert joined == ["gloo"]


def test_on_gpus_each_process_has_its_hosts_next_one(joined, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert this_machine() == Machine(3, 4, torch.device("cuda", 1))
    assert (chosen, joined) == ([torch.device("cuda", 1)], ["nccl"])


def test_the_leading_process_speaks_for_all(capsys):
    for rank in range(3):
        Machine(rank, 3, CPU).say(f"I am {rank}")
    assert capsys.readouterr().out == "I am 0\n"


@pytest.mark.parametrize(
    ("rank", "world", "expected"),
    [(0, 1, ["work"]), (0, 2, ["work", "barrier"]), (1, 2, ["barrier"])],
    ids=["alone", "leads", "follows"],
)
def test_the_leading_process_works_before_the_others_go_on(monkeypatch, rank, world, expected):
    order = []
    monkeypatch.setattr(torch.distributed, "barrier", lambda: order.append("barrier"))
    Machine(rank, world, CPU).first(lambda: order.append("work"))
    assert order == expected


def test_alone_the_model_is_trained_as_it_is_and_compiled_where_asked(monkeypatch):
    model = nn.Linear(2, 1)
    assert wrapped(model, Machine(0, 1, CPU), compiled=False) is model
    monkeypatch.setattr(torch, "compile", lambda model, **how: ("compiled", model, how["fullgraph"], how["dynamic"]))
    assert wrapped(model, Machine(0, 1, CPU), compiled=True) == ("compiled", model, True, False)


def test_among_others_gradients_are_averaged_around_what_is_compiled(monkeypatch):
    """DDP itself is torch's; two real processes train as one in tests/pipeline/test_train.py."""
    monkeypatch.setattr(
        nn.parallel, "DistributedDataParallel", lambda model, device_ids, **_: ("ddp", model, device_ids)
    )
    monkeypatch.setattr(torch, "compile", lambda model, **how: ("compiled", model, how["fullgraph"], how["dynamic"]))
    model, gpu = nn.Linear(2, 1), torch.device("cuda", 1)
    assert wrapped(model, Machine(1, 2, CPU), compiled=False) == ("ddp", model, None)
    assert wrapped(model, Machine(1, 2, gpu), compiled=True) == ("ddp", ("compiled", model, True, False), [gpu])


def test_a_reader_of_the_output_that_left_stops_nothing(monkeypatch, capsys):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        os.close(reading)
        Machine(0, 1, CPU).say("step 1")
        Machine(0, 1, CPU).say("step 2")
    assert capsys.readouterr().err == "note: nobody reads the output any more; training goes on without it\n"
    Machine(0, 1, CPU).say("after the end of the output")
