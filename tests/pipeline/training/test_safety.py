"""Steps that are not finite or spike are skipped and counted, whatever the optimizer; the rest go on as they would."""

import pytest
import torch

from pipeline.training.safety import ENOUGH, Counts, Watch, apply

CPU = torch.device("cpu")


def checked(watch, loss, norm):
    mean, good = watch.check(torch.tensor(float(loss)), torch.tensor(float(norm)))
    return float(mean), bool(good)


def test_what_is_not_finite_is_skipped_and_counted_in_a_row():
    watch = Watch(CPU, 1, spike=0)
    assert checked(watch, 2.5, 1.0) == (2.5, True)
    assert [checked(watch, *pair)[1] for pair in ((1, "nan"), ("inf", 1), ("nan", "nan"))] == [False] * 3
    assert watch.look() == Counts(accepted=1, broken=3, spikes=0, in_a_row=3)
    assert checked(watch, 2.0, 10**9) == (2.0, True)
    assert watch.look(wait=True) == Counts(accepted=2, broken=3, spikes=0, in_a_row=0)
    assert watch.counts.skipped == 3


def test_a_spike_is_measured_by_the_running_median_once_there_are_enough():
    watch = Watch(CPU, 1, spike=3.0)
    norms = [1.0, 2.0] * (ENOUGH // 2)
    assert checked(watch, 1, 500)[1]  # too few to say
    assert all(checked(watch, 1, norm)[1] for norm in norms[1:])
    assert [checked(watch, 1, norm)[1] for norm in (6.1, 6.0)] == [
        False,
        True,
    ]  # the median of one 1, sixteen 2, ... is 2
    assert watch.look() == Counts(accepted=ENOUGH + 1, broken=0, spikes=1, in_a_row=0)
    for _ in range(200):  # the median follows
        checked(watch, 1, 5.9)
    assert checked(watch, 1, 17.0)[1]


def test_a_checkpoint_keeps_norms_and_counts():
    watch = Watch(CPU, 1, spike=2.0)
    for norm in [1.0] * ENOUGH + [9.0]:
        checked(watch, 1, norm)
    again = Watch(CPU, 1, spike=2.0)
    again.load(watch.state())
    assert again.look() == Counts(accepted=ENOUGH, broken=0, spikes=1, in_a_row=0)
    assert not checked(again, 1, 2.5)[1]
    assert checked(again, 1, 1.5)[1]


class OnDevice(torch.Tensor):
    """A tensor that says it lies on a GPU, so that a step is decided there."""

    device = torch.device("cuda")


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(fused):
    def stepped(goods):
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
        for number, good in enumerate(goods):
            parameter.grad = torch.full((3,), float(number + 1) if good else float("nan"))
            flag = torch.tensor(good)
            apply([optimizer], flag.as_subclass(OnDevice) if fused else flag)
            assert parameter.grad is None
        return parameter.detach(), optimizer.state[parameter]

    weights, state = stepped([True, True, False, True])
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    for value in (1.0, 2.0, 4.0):
        parameter.grad = torch.full((3,), value)
        optimizer.step()
    assert torch.equal(weights, parameter.detach())
    assert all(torch.equal(state[name], optimizer.state[parameter][name]) for name in ("step", "exp_avg", "exp_avg_sq"))
