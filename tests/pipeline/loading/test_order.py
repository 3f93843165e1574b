"""The order of an epoch: every sample once, by (seed, epoch) alone, found again at any position."""

import numpy as np
import pytest

from pipeline.loading.order import Order, Span, draw, draws


def uids(count):
    return np.array([[0, number] for number in range(count)], np.uint64)


def test_draws_are_splitmix64_of_the_uid_under_a_key():
    def mixed(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = draw("order", 3)
    wanted = [mixed((mixed(5 ^ key) + 7) % 2**64), mixed((mixed(2**64 - 1 ^ key) + 2**63) % 2**64)]
    assert draws(np.array([[5, 7], [2**64 - 1, 2**63]], np.uint64), "order", 3).tolist() == wanted


def test_draws_are_even_and_change_with_the_words():
    shares = [draws(uids(20_000), "x", seed) / 2**64 for seed in (0, 1)]
    assert [float(share.mean()) for share in shares] == pytest.approx([0.5, 0.5], abs=0.01)
    assert np.histogram(shares[0], 10, (0, 1))[0].tolist() == pytest.approx([2000] * 10, abs=200)
    assert abs(np.corrcoef(*shares)[0, 1]) < 0.03


def test_an_epoch_has_each_shard_once_in_windows_and_empty_ones_nowhere():
    order = Order(list("abcde"), np.array([3, 0, 4, 5, 2]), seed=1, window=2)
    for epoch in range(5):
        plan = order.epoch(epoch)
        assert sorted(number for window in plan.windows for number in window) == [0, 2, 3, 4]
        assert [len(window) for window in plan.windows] == [2, 2]
        assert plan.starts[-1] == order.samples == 14
    assert len({order.epoch(epoch).windows for epoch in range(9)}) > 3
    assert Order(list("abcde"), np.array([3, 0, 4, 5, 2]), 1, 2).epoch(7).windows == order.epoch(7).windows


def test_spans_cut_at_windows_and_epochs():
    order = Order(list("abc"), np.array([2, 2, 2]), seed=0, window=2)
    assert order.spans(0, 4) == [Span(0, 0, 0, 4)]
    assert order.spans(3, 8) == [Span(0, 0, 3, 4), Span(0, 1, 0, 2), Span(1, 0, 0, 2)]
    assert order.spans(12, 13) == [Span(2, 0, 0, 1)]
    pieces = [span for start in range(0, 30, 3) for span in order.spans(start, start + 3)]
    assert sum(span.stop - span.start for span in pieces) == 30


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="no sample is left"):
        Order(["a"], np.array([0]), 0, 1)
