"""Hash pictures perceptually and cluster those whose hashes are close."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import comb, log2
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, np.dtype[Any]]
HASH_BITS = 64
SIDE, KEPT = 32, 8
"""pHash: the 8 x 8 lowest frequencies of a 32 x 32 grey picture."""
BLOCK = 1 << 17
"""Pairs compared at a time: 1 MiB of hashes, which stays in a core's cache."""


def phash(images: "Sequence[Image]") -> Array:
    """Return the 64-bit perceptual hash of each picture, (N,) uint64: bit for bit `imagehash.phash`, first bit highest.

    The transform must stay scipy's float64 one: on flat and mirrored pictures others round to other bits.
    """
    from PIL import Image
    from scipy.fft import dct

    if not images:
        return np.zeros(0, np.uint64)
    grey = np.stack([np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64) for image in images])
    low = dct(dct(grey, axis=1), axis=2)[:, :KEPT, :KEPT].reshape(len(images), HASH_BITS)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def clusters(hashes: Array, radius: int) -> Array:
    """Return the cluster of each hash, (N,) int64: the smallest index in its connected component.

    Two hashes are connected when they differ in at most `radius` bits; all such pairs are found.
    """
    distinct, first, back = np.unique(np.asarray(hashes, np.uint64), return_index=True, return_inverse=True)
    labels = np.arange(len(distinct))
    for one, other in _close_pairs(distinct, radius):
        labels = _joined(labels, one, other)
        if not labels.any():
            break  # one cluster holds all
    smallest = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(smallest, labels, first)
    return smallest[labels][back].astype(np.int64)


def _joined(labels: Array, one: Array, other: Array) -> Array:
    """Return the labels after connecting the pairs one[i], other[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = labels[one], labels[other]
    apart = ends[0] != ends[1]
    if not apart.any():
        return labels
    graph = coo_array((np.ones(apart.sum(), np.bool_), (ends[0][apart], ends[1][apart])), shape=(len(labels), len(labels)))
    found: Array = connected_components(graph, directed=False)[1]
    return found[labels]


def _close_pairs(distinct: Array, radius: int) -> Iterator[tuple[Array, Array]]:
    """Yield batches of index pairs of hashes within the radius; every such pair comes at least once.

    Cut into radius + k bands, two close hashes agree in at least k of them, since each differing bit spoils one band: so it is
    enough to compare hashes that agree in some choice of k bands. k is what costs least; 0 compares all with all.
    """
    count = len(distinct)
    if radius <= 0 or count < 2:
        return
    costs = {k: _cost(count, radius, k) for k in range(5)}
    k = min(costs, key=lambda k: costs[k])
    tables = list(_tables(radius, k))
    orders = [np.argsort(distinct & mask, kind="stable") for mask in tables]
    pairs = sum(_pairs(distinct[order] & mask) for order, mask in zip(orders, tables, strict=True))
    if k == 0 or pairs > count * count // 2:  # hashes that crowd in few buckets
        yield from _all_pairs(distinct, radius)
        return
    for order, mask in zip(orders, tables, strict=True):
        yield from _bucket_pairs(distinct, order, mask, radius)


def _cost(count: int, radius: int, k: int) -> float:
    """Return about how many operations k agreeing bands take: sorting each table, and comparing within its buckets."""
    if k == 0:
        return count * count / 2
    bits = k * HASH_BITS / (radius + k)
    return float(comb(radius + k, k) * (8 * count * log2(count) + count * count / 2 ** (bits - 2)))


def _tables(radius: int, k: int) -> Iterator[np.uint64]:
    """Yield the mask of each choice of k out of radius + k bands."""
    edges = [HASH_BITS * band // (radius + k) for band in range(radius + k + 1)]
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    for chosen in combinations(bands, k):
        yield np.uint64(sum(chosen))


def _pairs(keys: Array) -> int:
    """Return how many pairs of equal keys sorted keys hold."""
    runs = np.diff(np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1], [True])))).astype(object)
    return int((runs * (runs - 1) // 2).sum())


def _bucket_pairs(distinct: Array, order: Array, mask: np.uint64, radius: int) -> Iterator[tuple[Array, Array]]:
    """Yield the close pairs within the buckets of one table: first each hash with its next, then with the one after, …"""
    sorted_hashes = distinct[order]
    keys = sorted_hashes & mask
    at = np.arange(len(keys) - 1)
    for step in range(1, len(keys)):
        at = at[at + step < len(keys)]
        at = at[keys[at] == keys[at + step]]
        if not len(at):
            return
        close = at[np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + step]) <= radius]
        if len(close):
            yield order[close], order[close + step]


def _all_pairs(distinct: Array, radius: int) -> Iterator[tuple[Array, Array]]:
    """Yield the close pairs of all with all, a block of rows at a time."""
    rows = max(1, BLOCK // len(distinct))
    for start in range(0, len(distinct), rows):
        block = distinct[start : start + rows]
        one, other = np.nonzero(np.bitwise_count(block[:, None] ^ distinct[None, start:]) <= radius)
        ahead = one < other
        yield one[ahead] + start, other[ahead] + start
