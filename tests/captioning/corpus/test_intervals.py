"""Intervals hold the true value about 19 times of 20, for few hits and for many."""

import numpy as np
import pytest

from captioning.corpus.intervals import mean, mean_difference, paired_difference, share, share_difference

DRAW = np.random.default_rng(7)


def test_wilson_as_published():
    found = share(81, 263)  # Newcombe 1998, table I
    assert (round(found.rate, 4), round(found.low, 4), round(found.high, 4)) == (0.3080, 0.2553, 0.3662)
    assert (share(0, 20).low, round(share(0, 20).high, 4)) == (0.0, 0.1611)
    assert share(29, 29).high == 1.0
    assert share(0, 0).rate is None


def test_newcombe_as_published():
    found = share_difference(share(56, 70), share(48, 80))  # Newcombe 1998 b, table II, method 10
    assert (round(found.value, 4), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)
    assert found.apart
    assert not share_difference(share(5, 10), share(5, 10)).apart
    assert share_difference(share(0, 0), share(1, 2)).value is None


@pytest.mark.parametrize(("rate", "rows"), [(0.3, 500), (0.01, 500), (0.9, 40)])
def test_shares_lie_in_their_interval_19_times_of_20(rate, rows):
    found = [share(int(hits), rows) for hits in DRAW.binomial(rows, rate, 2000)]
    assert 0.93 <= np.mean([one.low <= rate <= one.high for one in found]) <= 0.99


def test_equal_shares_are_called_apart_one_time_of_20():
    pairs = DRAW.binomial(400, 0.2, (2000, 2)).tolist()
    assert np.mean([share_difference(share(a, 400), share(b, 400)).apart for a, b in pairs]) <= 0.065


def test_paired_shares_are_called_apart_one_time_of_20():
    rows = DRAW.multinomial(1000, [0.02, 0.02, 0.1, 0.86], 2000).tolist()
    assert np.mean([paired_difference(one, other, 1000).apart for one, other, *_ in rows]) <= 0.065
    assert paired_difference(0, 300, 1000).high < -0.25
    assert paired_difference(0, 0, 0).value is None
    assert not paired_difference(0, 0, 50).apart


def test_means():
    values = DRAW.normal(5.0, 1.0, 400)
    found = mean(len(values), values.sum(), (values**2).sum())
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / 20)
    assert found.low < 5.0 < found.high
    assert mean(1, 3.0, 9.0).low is None
    assert mean(0, 0.0, 0.0).mean is None
    more = mean(400, values.sum() + 400, ((values + 1) ** 2).sum())
    assert mean_difference(more, found).apart
    assert mean_difference(mean(1, 3.0, 9.0), found).value is None
