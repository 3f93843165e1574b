"""Blends: each set has its share of the positions, its samples come in its own order, any position is found at once."""

import numpy as np
import pytest

from pipeline.loading.blend import BLOCK, Blend


def test_shares_are_exact_at_every_block_and_samples_come_in_their_order():
    blend = Blend([0.7, 0.3], seed=1)
    run = blend.run(0, 5 * BLOCK)
    for block in range(1, 6):
        counts = np.bincount(run.set_B[: block * BLOCK], minlength=2)
        assert counts[1] == int(0.3 * block * BLOCK)
        assert counts.sum() == block * BLOCK
    for number in (0, 1):
        places = run.place_B[run.set_B == number]
        assert places.tolist() == list(range(len(places)))


def test_sets_are_mixed_within_a_block_and_by_the_seed():
    first, other = (Blend([1, 1], seed).run(0, BLOCK).set_B for seed in (0, 1))
    halves = first.reshape(8, -1).mean(1)
    assert halves == pytest.approx([0.5] * 8, abs=0.1)
    assert (first != other).mean() == pytest.approx(0.5, abs=0.1)


def test_any_position_is_found_without_walking():
    blend = Blend([3, 2, 1], seed=4)
    whole = blend.run(0, 3 * BLOCK)
    again = Blend([3, 2, 1], seed=4)
    for start, stop in ((0, 7), (BLOCK - 3, BLOCK + 4), (2 * BLOCK, 2 * BLOCK + 1), (100, 2 * BLOCK + 50)):
        run = again.run(start, stop)
        assert run.set_B.tolist() == whole.set_B[start:stop].tolist()
        assert run.place_B.tolist() == whole.place_B[start:stop].tolist()


def test_by_epochs_a_set_passes_so_often_while_the_whole_passes_once():
    """10,000 samples once and 2,384 three times: 17,152 positions, 1,024 short of a block's multiple."""
    blend = Blend.by_epochs([10_000, 2_096], [1, 3], 0)
    run = blend.run(0, 16_288)
    counts = np.bincount(run.set_B)
    assert counts.sum() == 16_288
    assert counts.tolist() == pytest.approx([10_000, 6_288], abs=BLOCK * 0.02)
    at_a_block = np.bincount(blend.run(0, 3 * BLOCK).set_B)
    assert at_a_block[1] == 3 * BLOCK * 6_288 // 16_288


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="wanted numbers above 0"):
        Blend([1, 0], 0)
