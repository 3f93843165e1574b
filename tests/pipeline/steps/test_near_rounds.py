"""Components in rounds on disk are those of one process, for any number of parts."""

from itertools import pairwise

import numpy as np
import pytest

from filters.hamming import thinned
from pipeline.execution import shuffle
from pipeline.steps.near_rounds import Rounds


def joined(folder, one, other):
    """Return hash -> smallest of its component, as rounds have it."""
    halves = np.array_split(np.arange(len(one)), 3)
    found = Rounds(folder, len(one)).components((one[part], other[part]) for part in halves)
    pairs = [pair for root, phash in found for pair in zip(phash.tolist(), root.tolist(), strict=True)]
    assert len(pairs) == len(dict(pairs))  # each once
    return dict(pairs)


@pytest.mark.parametrize("slice_bytes", [10_000, 100])
def test_a_path_a_star_and_a_pair(tmp_path, monkeypatch, slice_bytes):
    """40 numbers in a path, drawn in any order; 100 with 101 ... 109; 200 with 300. In one part and in many."""
    monkeypatch.setattr(shuffle, "SLICE_BYTES", slice_bytes)
    path = np.random.default_rng(0).permutation(40)
    pairs = [*pairwise(path), *((100, 100 + n) for n in range(1, 10)), (300, 200)]
    one, other = (np.array(side, np.uint64) for side in zip(*pairs, strict=True))
    wanted = {**dict.fromkeys(range(40), 0), **dict.fromkeys(range(100, 110), 100), 200: 200, 300: 200}
    assert joined(tmp_path / "rounds", one, other) == wanted
    assert not (tmp_path / "rounds").exists()


def test_random_pairs_are_joined_as_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 2000)
    one, other = np.random.default_rng(1).integers(0, 1000, (2, 480), dtype=np.uint64)
    apart = one != other
    one, other = one[apart], other[apart]
    root, member = thinned(one, other)
    wanted = {**{value: value for value in root.tolist()}, **dict(zip(member.tolist(), root.tolist(), strict=True))}
    assert joined(tmp_path / "rounds", one, other) == wanted


def test_no_pairs(tmp_path):
    nothing = np.zeros(0, np.uint64)
    assert joined(tmp_path / "rounds", nothing, nothing) == {}
