"""Blend several sets by weight or by epochs: which set, and which of its samples, stands at a position."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from pipeline.loading.order import Numbers, Whole, draw, draws

BLOCK = 4096
"""Positions whose sets are mixed with one another; a set's share of them is exact to one."""


@dataclass(frozen=True)
class Run:
    """Some consecutive positions: the set of each, and which of that set's samples, counted over its epochs."""

    set_B: Whole
    place_B: Whole


class Blend:
    """The sets of an endless stream: of its first n positions a set has its share of n, to within one, at every
    multiple of BLOCK."""

    def __init__(self, shares: Sequence[float | Fraction], seed: int) -> None:
        """shares: what of the stream each set is, up to a common factor; above 0. Raises ValueError."""
        if not shares or not all(share > 0 for share in shares):
            raise ValueError(f"shares of a blend are {list(shares)}, wanted numbers above 0")
        whole = sum((Fraction(share) for share in shares), Fraction(0))
        self.shares, self.seed = [Fraction(share) / whole for share in shares], seed
        self._largest = max(range(len(shares)), key=lambda number: self.shares[number])
        self._block = lru_cache(4)(self._block_of)

    @classmethod
    def by_epochs(cls, samples: Sequence[int], epochs: Sequence[float], seed: int) -> "Blend":
        """Return the blend in which each set passes so many times while the whole passes once."""
        return cls([count * Fraction(times) for count, times in zip(samples, epochs, strict=True)], seed)

    def before(self, block: int) -> list[int]:
        """Return how many positions before this block each set has: the rounded-down share, the largest set the
        rest."""
        positions = block * BLOCK
        counts = [int(share * positions) for share in self.shares]
        counts[self._largest] += positions - sum(counts)
        return counts

    def _block_of(self, block: int) -> Run:
        """Return the sets and places of a block's positions, mixed by draw(block, slot, seed)."""
        start, end = self.before(block), self.before(block + 1)
        sets = np.repeat(np.arange(len(start)), [after - first for first, after in zip(start, end, strict=True)])
        mixed = np.argsort(_slots(draw("blend", block, self.seed)), kind="stable")
        set_B = sets[mixed]
        place_B = np.zeros(BLOCK, np.int64)
        for number, first in enumerate(start):
            mine = np.flatnonzero(set_B == number)
            place_B[mine] = first + np.arange(len(mine))
        return Run(set_B, place_B)

    def run(self, start: int, stop: int) -> Run:
        """Return the positions `start` to `stop`."""
        if len(self.shares) == 1:
            return Run(np.zeros(stop - start, np.int64), np.arange(start, stop))
        parts = [
            (self._block(block), slice(max(0, start - block * BLOCK), stop - block * BLOCK))
            for block in range(start // BLOCK, -(-stop // BLOCK))
        ]
        return Run(
            np.concatenate([part.set_B[where] for part, where in parts]),
            np.concatenate([part.place_B[where] for part, where in parts]),
        )


def _slots(key: int) -> Numbers:
    """Return a number for each slot of a block: (BLOCK,)."""
    slots = np.arange(BLOCK, dtype=np.uint64)
    return draws(np.stack((np.full(BLOCK, key, np.uint64), slots), axis=1), "slot")
