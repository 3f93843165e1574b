"""The running average by hand; a skipped step does not move it; the model has it in place and gets its own back."""

import pytest
import torch

from pipeline.training.ema import WARMUP, Average

YES, NO = torch.tensor(True), torch.tensor(False)


def model(value):
    linear = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(linear.weight, value)
    return linear


def test_the_average_by_hand():
    """The decay is 1/10, 2/11, then 0.25 as asked."""
    linear = model(0.0)
    average = Average(linear, 0.25)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 3.0, 4.0)):
        torch.nn.init.constant_(linear.weight, value)
        average.update(YES, step)
        decay = min(0.25, (1 + step) / (WARMUP + step))
        expected = decay * expected + (1 - decay) * value
    assert average.tensors["weight"].tolist() == [[pytest.approx(expected)] * 2]
    assert min(0.25, 4 / 13) == 0.25


def test_a_skipped_step_does_not_move_it():
    linear = model(1.0)
    average = Average(linear, 0.5)
    torch.nn.init.constant_(linear.weight, 9.0)
    average.update(NO, 0)
    assert average.tensors["weight"].tolist() == [[1.0, 1.0]]


def test_the_model_has_it_while_the_block_runs_and_after_an_error_its_own():
    linear = model(1.0)
    average = Average(linear, 0.5)
    torch.nn.init.constant_(linear.weight, 3.0)

    def look_and_fail():
        with average.in_place():
            seen.append(linear.weight.tolist())
            raise RuntimeError

    seen = []
    with pytest.raises(RuntimeError):
        look_and_fail()
    assert seen == [[[1.0, 1.0]]]
    assert linear.weight.tolist() == [[3.0, 3.0]]
    assert average.tensors["weight"].tolist() == [[1.0, 1.0]]
