"""Hash pictures perceptually and cluster those whose hashes are close."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.hamming import Pairs, candidates, choose_bands, components, connecting_pairs, pair_masks, thinned

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, np.dtype[Any]]
HASH_BITS = 64
SIDE, KEPT = 32, 8
"""pHash: the 8 x 8 lowest frequencies of a 32 x 32 grey picture."""
HELD_PAIRS = 1 << 22
"""Pairs held before they are thinned to a forest: 64 MiB."""
WIDTH = 1 << 18
"""Hashes that are held against a list at a time."""
FEW = 32
"""Hashes in a list up to which every hash is compared with every one of them."""


def phash(images: "Sequence[Image]") -> Array:
    """Return the 64-bit perceptual hash of each picture, (N,) uint64: bit for bit `imagehash.phash`, first bit highest.

    The transform must stay scipy's float64 one: on flat and mirrored pictures others round to other bits.
    """
    from PIL import Image

    if not images:
        return np.zeros(0, np.uint64)
    return phash_of_grey(
        np.stack(
            [
                np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64)
                for image in images
            ]
        )
    )


def phash_of_grey(grey: Array) -> Array:
    """Return the perceptual hash of grey pictures that are 32 x 32 already, (N, 32, 32) float64 in 0..255 -> (N,)
    uint64."""
    from scipy.fft import dct

    low = dct(dct(grey, axis=1)[:, :KEPT], axis=2)[:, :, :KEPT].reshape(len(grey), HASH_BITS)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def clusters(hashes: Array, radius: int, workers: int = 0) -> Array:
    """Return the cluster of each hash, (N,) int64: the smallest index in its connected component.

    Two hashes are connected when they differ in at most `radius` bits; all such pairs are found. Equal hashes are one
    from the start.
    `workers`: threads, 0 for one per core; the result does not depend on it.
    """
    distinct, first, back = np.unique(np.asarray(hashes, np.uint64), return_index=True, return_inverse=True)
    nothing = np.zeros(0, np.uint64)
    found = (
        _of_all_tables(distinct, radius, workers or len(os.sched_getaffinity(0))) if radius > 0 else (nothing, nothing)
    )
    return first_of_each(distinct, first, *found)[back]


def first_of_each(distinct: Array, first: Array, one: Array, other: Array) -> Array:
    """Return, for each of the sorted distinct hashes, the smallest `first` of its component, (N,) int64; one[i],
    other[i] are joined."""
    labels = components(len(distinct), np.searchsorted(distinct, one), np.searchsorted(distinct, other))
    smallest = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(smallest, labels, first)
    return smallest[labels].astype(np.int64)


def _of_all_tables(distinct: Array, radius: int, workers: int) -> Pairs:
    """Return pairs that connect what is close; threads work on as many tables at once, and know what the tables before
    have found."""
    bands = choose_bands(distinct, radius)
    tables = range(max(1, len(bands.tables)))
    found = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    with ThreadPoolExecutor(workers) as pool:
        for start in tables[::workers]:
            labels = first_of_each(distinct, np.arange(len(distinct)), *found)
            if not labels.any():
                break  # one cluster holds all
            known = distinct, labels
            wave = tables[start : start + workers]
            made = pool.map(
                lambda table, known: _joined(connecting_pairs(distinct, bands, table, known)), wave, [known] * len(wave)
            )
            found = thinned(*_together([found, *made]))
    return found


def _joined(batches: Iterable[Pairs]) -> Pairs:
    """Return all pairs of some batches, thinned whenever there are too many to hold."""
    held: list[Pairs] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch[0])
        if count > HELD_PAIRS:
            held = [thinned(*_together(held))]
            count = len(held[0][0])
    return thinned(*_together(held))


def _together(held: Sequence[Pairs]) -> Pairs:
    nothing = np.zeros(0, np.uint64)
    return np.concatenate([nothing, *(one for one, _ in held)]), np.concatenate(
        [nothing, *(other for _, other in held)]
    )


def nearest(hashes: Array, listed: Array, radius: int) -> tuple[Array, Array]:
    """Return, per hash, the place in `listed` of the nearest hash within the radius and its distance, (N,) int64 each;
    -1 where none.

    Of two that are as near the first in the list counts. None is missed: see filters/hamming.py.
    """
    found, least = np.full(len(hashes), -1, np.int64), np.full(len(hashes), radius + 1, np.int64)
    values, first = np.unique(np.asarray(listed, np.uint64), return_index=True)
    for start in range(0, len(hashes), WIDTH):
        part = slice(start, start + WIDTH)
        for mask in pair_masks(radius) if len(values) > FEW else (0,):
            at, of = candidates(hashes[part], values, mask)
            distance = np.bitwise_count(hashes[part][at] ^ values[of]).astype(np.int64)
            near = np.flatnonzero(distance <= radius)
            near = near[np.lexsort((first[of[near]], distance[near], at[near]))]
            near = near[np.unique(at[near], return_index=True)[1]]
            place, order = at[near] + start, first[of[near]]
            better = (distance[near] < least[place]) | ((distance[near] == least[place]) & (order < found[place]))
            found[place[better]], least[place[better]] = order[better], distance[near][better]
    return found, np.where(found < 0, -1, least)


def most_alike(embeddings: Array, listed: Array) -> tuple[Array, Array]:
    """Return, per embedding (N, D), the place of the most alike of `listed` (M, D), (N,) int64, and their cosine, (N,)
    float32.

    Lengths do not count. Raises ValueError for another D: embeddings of two models have no angle.
    """
    if embeddings.shape[1:] != listed.shape[1:]:
        raise ValueError(f"embeddings of {embeddings.shape[1:]} numbers against {listed.shape[1:]}")
    one, other = (np.asarray(some, np.float32) for some in (embeddings, listed))
    one, other = (some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-12) for some in (one, other))
    place, cosine = np.zeros(len(one), np.int64), np.full(len(one), -2, np.float32)
    for start in range(0, len(other), 4096):
        found = one @ other[start : start + 4096].T
        nearest_, best = found.argmax(axis=1), found.max(axis=1)
        better = best > cosine
        place[better], cosine[better] = nearest_[better] + start, best[better]
    return place, cosine
