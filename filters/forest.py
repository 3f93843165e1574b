"""Join close pairs to components in little memory, and find the smallest uid of each key."""

import numpy as np

from filters.hamming import BITS, MIX, Array, thinned

HELD_PAIRS = 1 << 21
"""Pairs that are held before they are thinned: 32 MiB."""
NOBODY = np.iinfo(np.uint64).max
"""Both halves of the uid of a removed picture: it comes after all others."""


class Forest:
    """Pairs that are thinned whenever there are `most` more of them than the last time left, and twice as many."""

    def __init__(self, most: int = HELD_PAIRS) -> None:
        self._most, self._count, self._left = most, 0, 0
        self._held: list[tuple[Array, Array]] = []

    def add(self, one: Array, other: Array) -> None:
        """Add pairs one[i], other[i]."""
        self._held.append((one, other))
        self._count += len(one)
        if self._count > self._left + max(self._most, self._left):
            self.thinned()

    def thinned(self) -> tuple[Array, Array]:
        """Return pairs that connect the same: each hash with the smallest of its component."""
        nothing = np.zeros(0, np.uint64)
        one = np.concatenate([nothing, *(one for one, _ in self._held)])
        other = np.concatenate([nothing, *(other for _, other in self._held)])
        self._held.clear()
        found = thinned(one, other)
        self._held.append(found)
        self._count = self._left = len(found[0])
        return found


def smallest_uids(keys: Array, high: Array, low: Array) -> tuple[Array, Array, Array]:
    """Return the distinct keys, in order, and both halves of the smallest uid of each, (N,) uint64."""
    if not len(keys):
        return keys, high, low
    order = np.argsort(keys)
    keys, high, low = keys[order], high[order], low[order]
    begins = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), keys[1:] != keys[:-1])))
    first = np.minimum.reduceat(high, begins)
    of = np.repeat(first, np.diff(np.append(begins, len(keys))))
    second = np.minimum.reduceat(np.where(high == of, low, NOBODY), begins)
    return keys[begins], first, second


def find(known: Array, asked: Array) -> Array:
    """Return the place of each asked number among the known, which are in order and distinct, -1 where it is not
    there."""
    if not len(known):
        return np.full(len(asked), -1)
    at = np.searchsorted(known, asked)
    at[at == len(known)] = 0
    return np.where(known[at] == asked, at, -1)


def sample_bits(rows: int, most: int) -> int:
    """Return the bits of a mixed pHash that are zero in a sample of at most `most` of so many rows."""
    return (rows // most).bit_length()


def in_sample(hashes: Array, bits: int) -> Array:
    """Tell which pHashes are in the sample: the same ones everywhere."""
    if not bits:
        return np.ones(len(hashes), np.bool_)
    chosen: Array = hashes * np.uint64(MIX) >> np.uint64(BITS - bits) == 0
    return chosen


def distinct_pairs(one: Array, other: Array) -> tuple[Array, Array]:
    """Return the distinct ones of the pairs one[i], other[i], in order."""
    order = np.lexsort((other, one))
    one, other = one[order], other[order]
    new = np.ones(len(one), np.bool_)
    new[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return one[new], other[new]


def large_star(node: Array, near: Array) -> tuple[Array, Array]:
    """Return pairs (larger, smaller) that join what the pairs node[i], near[i] join, in order of node: each larger
    neighbour with the smallest of a node and its neighbours (Kiveris et al. 2014).

    All pairs of a node, in both directions, are there.
    """
    begins, least = smallest_near(node, near)
    least = np.minimum(least, node[begins])
    larger = near > node
    return near[larger], np.repeat(least, np.diff(np.append(begins, len(node))))[larger]


def small_star(node: Array, near: Array) -> tuple[Array, Array]:
    """Return pairs (larger, smaller) that join what the pairs node[i] > near[i] join, in order of node: each node, and
    its smaller neighbours, with the smallest of these. All pairs of a node with smaller ones are there."""
    begins, least = smallest_near(node, near)
    of = np.repeat(least, np.diff(np.append(begins, len(node))))
    other = near != of
    return np.concatenate([node[begins], near[other]]), np.concatenate([least, of[other]])


def smallest_near(node: Array, near: Array) -> tuple[Array, Array]:
    """Return where each node begins in pairs that are in order of node, and its smallest neighbour."""
    begins = np.flatnonzero(np.concatenate((np.ones(len(node[:1]), np.bool_), node[1:] != node[:-1])))
    return begins, np.minimum.reduceat(near, begins) if len(node) else near
