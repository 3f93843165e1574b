"""Speed by hand: samples, tokens, the share of the card's arithmetic."""

import time

import pytest
import torch

from pipeline.gpt_spec import gpt_spec
from pipeline.training.progress import Meter, Speed, peak_flops, picture_flops


def test_arithmetic_of_a_picture_by_hand():
    spec = gpt_spec("GPT-B", "class", 16, "zero", {})
    assert picture_flops(spec, 1) == 6 * 110_888_448 * 256 + 12 * 12 * 768 * 256**2


def test_peaks_are_known_by_the_cards_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A10G") == 125e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("Tesla P4") is None


def test_a_meter_counts_the_steps_since_it_was_read(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter(torch.device("cpu"), batch=8, tokens=64)
    for loss, good in ((2.0, True), (4.0, True), (float("nan"), False), (6.0, True)):
        meter.add(torch.tensor(loss), torch.tensor(good))
    now[0], meter.waited = 102.0, 0.5
    speed = meter.read(left=10)
    assert (speed.loss, speed.samples_per_s, speed.tokens_per_s) == (4.0, 16.0, 1024.0)
    assert (speed.mfu, speed.loader_share, speed.left_s) == (None, 0.25, 5.0)
    assert speed.words().startswith("16.0 samples/s  1,024 tokens/s  loader 25.0%  ")
    assert meter.steps == meter.waited == 0


def test_the_share_of_the_card_is_said_where_its_peak_is_known():
    speed = Speed(1.0, 1000, 10, 0.512, 0.01, 70.0, 5, 60)
    assert "MFU 51.2%" in speed.words()
    assert speed.record()["mfu"] == pytest.approx(0.512)
