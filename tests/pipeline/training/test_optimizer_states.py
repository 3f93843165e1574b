"""Optimizers' states by name: tensors in slots, numbers beside them; what does not fit is refused."""

import pytest
import torch
from torch import nn

from pipeline.training.optimizer_states import Trained, read_parts, staged, take_up, write_parts
from tests.support.spread_training import Run


@pytest.fixture
def _group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def trained(optimizer=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    made = optimizer(model.parameters(), lr=0.1, **options)
    model(torch.ones(1, 3)).sum().backward()
    made.step()
    return Trained(model, [made])


def test_slots_are_named_after_their_parameters_and_numbers_stand_apart():
    state = trained()
    assert sorted(state.slots()) == ["bias.exp_avg", "bias.exp_avg_sq", "weight.exp_avg", "weight.exp_avg_sq"]
    assert torch.allclose(state.slots()["weight.exp_avg"], torch.full((2, 3), 0.1))  # 0.1 of a gradient of 1
    assert state.numbers() == [{"slots": ["exp_avg", "exp_avg_sq"], "numbers": {"step": 1.0}}]
    assert [name for name, _ in state.owned(state.optimizers[0])] == ["weight", "bias"]
    fresh = Trained(state.model, [torch.optim.AdamW(state.model.parameters())])
    assert (fresh.slots(), fresh.numbers()) == ({}, [{"slots": [], "numbers": {}}])
    assert fresh.average() is None


@pytest.mark.usefixtures("_group")
def test_parts_come_back_into_whole_and_spread_optimizers(tmp_path):
    run = Run(parallel="fsdp").take(0)
    (tmp_path / "optimizer").mkdir()
    slots = staged(run.trained)
    run.trained.optimizers[0].state[run.gpt.norm.weight]["exp_avg"].zero_()  # the copy stays as it was
    write_parts(slots, tmp_path / "optimizer", torch.distributed.new_group(backend="gloo"))
    told = run.trained.numbers()
    for parallel in ("fsdp", "ddp"):
        other = Run(parallel=parallel)
        (state,) = read_parts(tmp_path, told, other.trained)
        take_up(other.trained.optimizers[0], state)
        assert other.trained.numbers() == told
        got = other.trained.slots()
        assert all(torch.equal(_full(got[name]), _full(slots[name])) for name in slots)
        assert float(_full(got["norm.weight.exp_avg"]).abs().sum()) > 0
    with pytest.raises(ValueError, match="momentum_buffer"):
        read_parts(tmp_path, [{"slots": ["momentum_buffer"], "numbers": {}}], Run().trained)
    with pytest.raises(ValueError, match="argument"):
        read_parts(tmp_path, [*told, *told], Run().trained)


def _full(tensor):
    return getattr(tensor, "full_tensor", lambda: tensor)()


def test_states_of_other_parameters_are_refused():
    state = trained()
    saved = state.optimizers[0].state_dict()
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters, wanted \[1\]"):
        take_up(torch.optim.AdamW([state.model.weight]), saved)
    wider = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="exp_avg of parameter 0 has another shape"):
        take_up(torch.optim.AdamW(wider.parameters()), saved)
