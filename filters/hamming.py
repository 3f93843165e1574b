"""Find the pairs of 64-bit hashes that differ in few bits, comparing only hashes that agree in some bands of bits.

Cut into radius + k bands, two hashes that differ in at most `radius` bits agree in at least k of them, since each
differing bit spoils one band at most: so it is enough to compare hashes that agree in some choice of k bands (a
*table*), and no pair is missed.

Three pure functions do the work, so that a GroupByKey can stand between them when one machine is too small: `spread` (a
batch of hashes -> the part of each table that it belongs to), `connecting_pairs` (the hashes of one part -> pairs),
`thinned` (pairs -> fewer pairs that connect the same). Pairs are pairs of hashes, not of places, so that they mean the
same everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb, log2
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Pairs = tuple[Array, Array]
Known = tuple[Array, Array]
"""Sorted hashes and the label of each: equal labels are connected already."""
BITS = 64
EVERYWHERE = (1 << BITS) - 1
BLOCK = 1 << 15
"""Pairs compared at a time: 256 KiB of hashes, which stay in a core's cache."""
HOT = 4096
"""Hashes in a bucket from which on it is treated as a crowd, which costs less than all its pairs."""
PIVOTS = 256
"""Stars tried in a crowd before its bits are cut again."""
SAMPLE = 1 << 17
"""Hashes that candidates are counted on; their pairs are scaled up by the square."""
SORT_NS, PAIR_NS = 6.0, 4.0
"""Nanoseconds per hash and bit of log2(count) to sort a table, and per pair to compare (measured; only their ratio
matters)."""
MOVE_NS = 30.0
"""Nanoseconds per hash and table where hashes are written to parts and read again (measured)."""
MOST_TABLES = 500
FILTER_BITS = 20
MIX = 0x9E3779B97F4A7C15
"""2**64 / golden ratio, odd: multiplying by it mixes low bits into high ones (Knuth's multiplicative hashing)."""


@dataclass(frozen=True)
class Bands:
    """A cut of some bits into tables: `tables` holds the mask of each choice of bands; none means that all pairs are
    compared."""

    radius: int
    free: int
    tables: tuple[int, ...]


def choose_bands(hashes: Array, radius: int, free: int = EVERYWHERE, count: int = 0, table_ns: float = 0.0) -> Bands:
    """Return the cut with the least cost for these distinct hashes (N,) uint64, which agree outside the bits `free`.

    Candidates are counted on a sample, for each number of agreeing bands, since real hashes crowd where random ones do
    not. `count`: how many hashes there are, where `hashes` is a sample of them. `table_ns`: what each of them costs
    beside sorting, for each table.
    """
    few = hashes if count else sampled(hashes)
    count = count or len(hashes)
    best, least = Bands(radius, free, ()), count * count / 2 * PAIR_NS
    scale = (count / max(1, len(few))) ** 2
    for k in range(1, free.bit_count() - radius + 1):
        tables = comb(radius + k, k)
        sorting = tables * count * (log2(max(count, 2)) * SORT_NS + table_ns)
        if tables > MOST_TABLES or sorting >= least:
            break
        masks = _masks(free, radius, k)
        tried = masks[:: max(1, len(masks) // 3)]
        pairs = sum(pairs_of_equal(few & np.uint64(mask)) for mask in tried) / len(tried) * scale * tables
        if sorting + pairs * PAIR_NS < least:
            best, least = Bands(radius, free, masks), sorting + pairs * PAIR_NS
    return best


def spread(hashes: Array, bands: Bands, parts: int) -> Iterator[tuple[tuple[int, int], Array]]:
    """Yield ((table, part), hashes) of a batch: hashes that agree in a table's bands land in one of its `parts`,
    wherever they come from.

    Without tables everything is one part.
    """
    if not bands.tables:
        yield (0, 0), hashes
    for table, mask in enumerate(bands.tables):
        part = part_of(hashes, parts, mask)
        for number in np.flatnonzero(np.bincount(part.astype(np.int64), minlength=0)).tolist():
            yield (table, number), hashes[part == number]


def part_of(hashes: Array, parts: int, mask: int = EVERYWHERE) -> Array:
    """Return the part of each hash, (N,) uint64 in 0 … parts - 1: hashes that agree in the bits of the mask share
    it."""
    # the product's upper half is scaled to the parts: its top bits are mixed from all bits of the mask
    return ((hashes & np.uint64(mask)) * np.uint64(MIX) >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)


def first_in(one: Array, other: Array, bands: Bands, table: int) -> Pairs:
    """Return those of the pairs one[i], other[i] that agree in no table before this one: who finds a pair in each of
    its tables keeps it once."""
    apart = one ^ other
    first = np.ones(len(apart), np.bool_)
    for mask in bands.tables[:table]:
        first &= apart & np.uint64(mask) != 0
    return one[first], other[first]


def connecting_pairs(hashes: Array, bands: Bands, table: int, known: Known | None = None) -> Iterator[Pairs]:
    """Yield batches of close pairs among the distinct hashes of one table (or a part of one).

    Any two hashes that are close and agree in the table's bands are connected by the pairs, directly or over others,
    and by what is `known` of all hashes from other tables, which only saves work; every pair is within the radius.
    """
    if not bands.tables:
        yield from _crowd(hashes, bands, known)
        return
    layout = _Layout(bands.tables[table])
    order = layout.packed(hashes)
    order.sort()
    shift = np.uint64(BITS - layout.bits)
    starts = _starts(order >> shift)
    lengths = np.diff(starts)
    hot = np.flatnonzero(lengths > HOT)
    inner = bands.free & ~bands.tables[table]
    for bucket in hot.tolist():
        members = layout.unpacked(order[starts[bucket] : starts[bucket + 1]])
        yield from _crowd(members, Bands(bands.radius, inner, ()), known)
    if len(hot):
        order = order[np.repeat(lengths <= HOT, lengths)]
        lengths = lengths[lengths <= HOT]
    for one, other in _gathered(_within_buckets(order, lengths, shift, bands.radius)):
        yield layout.unpacked(one), layout.unpacked(other)


def _gathered(batches: Iterator[Pairs]) -> Iterator[Pairs]:
    """Yield the same pairs in batches of BLOCK and more, but for the last: most blocks hold a pair or two."""
    held: list[Pairs] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch[0])
        if count >= BLOCK:
            yield np.concatenate([one for one, _ in held]), np.concatenate([other for _, other in held])
            held, count = [], 0
    if held:
        yield np.concatenate([one for one, _ in held]), np.concatenate([other for _, other in held])


def pair_masks(radius: int) -> tuple[int, ...]:
    """Return the masks of every two of radius + 2 bands: hashes within the radius agree in at least one of them."""
    return _masks(EVERYWHERE, radius, 2)


def candidates(hashes: Array, values: Array, mask: int) -> Pairs:
    """Return the places (in hashes, in values) of all pairs that agree in the bits of the mask; mask 0: of all
    pairs."""
    keys, wanted = hashes & np.uint64(mask), values & np.uint64(mask)
    order = np.argsort(wanted, kind="stable")
    wanted = wanted[order]
    seen = np.zeros(1 << FILTER_BITS, np.bool_)
    seen[_filter_slot(wanted)] = True
    at = np.flatnonzero(seen[_filter_slot(keys)])
    low, high = (np.searchsorted(wanted, keys[at], side) for side in ("left", "right"))
    at, low, counts = at[high > low], low[high > low], (high - low)[high > low]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(at, counts), order[np.repeat(low, counts) + within]


def _filter_slot(keys: Array) -> Array:
    """Return a slot of each key in a table of 2**FILTER_BITS, which tells most keys that are not there at the cost of
    one look."""
    return (keys * np.uint64(MIX) >> np.uint64(BITS - FILTER_BITS)).astype(np.int64)


def thinned(one: Array, other: Array) -> Pairs:
    """Return pairs that connect the same hashes as the pairs one[i], other[i]: each hash with the smallest of its
    component, sorted by hash."""
    nodes = distinct(np.concatenate([one, other]))
    labels = components(len(nodes), np.searchsorted(nodes, one), np.searchsorted(nodes, other))
    smallest = np.full(labels.max(initial=-1) + 1, len(nodes))
    np.minimum.at(smallest, labels, np.arange(len(nodes)))
    root = smallest[labels]
    moved = root != np.arange(len(nodes))
    return nodes[root[moved]], nodes[moved]


def components(count: int, one: Array, other: Array) -> Array:
    """Return the component of each of `count` nodes, (count,) int, where edges join one[i] and other[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    found: Array = connected_components(graph, directed=False)[1]
    return found


def sampled(hashes: Array) -> Array:
    """Return about half of SAMPLE to SAMPLE of the hashes (N,) uint64, chosen by a mix of all their bits; all of them
    where there are fewer."""
    bits = max(0, (len(hashes) // SAMPLE).bit_length())
    return hashes if not bits else hashes[hashes * np.uint64(MIX) >> np.uint64(BITS - bits) == 0]


def distinct(numbers: Array) -> Array:
    """Return the distinct ones of some numbers (N,), in order: `np.unique` of 64-bit hashes takes 17 times as long
    (numpy 2.4 looks each up in a table)."""
    order = np.sort(numbers)
    found: Array = order[np.concatenate((np.ones(len(order[:1]), np.bool_), order[1:] != order[:-1]))]
    return found


def _masks(free: int, radius: int, k: int) -> tuple[int, ...]:
    """Return the mask of each choice of k out of radius + k bands of the free bits."""
    bits = [bit for bit in range(BITS) if free >> bit & 1]
    edges = [len(bits) * band // (radius + k) for band in range(radius + k + 1)]
    bands = [sum(1 << bit for bit in bits[low:high]) for low, high in pairwise(edges)]
    return tuple(sum(chosen) for chosen in combinations(bands, k))


def pairs_of_equal(keys: Array) -> int:
    """Return how many pairs of these keys (N,) uint64 are equal."""
    lengths = np.diff(_starts(np.sort(keys))).astype(object)
    return int((lengths * (lengths - 1) // 2).sum())


def _starts(keys: Array) -> Array:
    """Return where each run of equal sorted keys starts, and the end."""
    if not len(keys):
        return np.zeros(1, np.int64)
    return np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1, [len(keys)]))


class _Layout:
    """A permutation of a hash's bits that puts those of a mask on top, so that sorting by value gathers its buckets."""

    def __init__(self, mask: int) -> None:
        self.bits = mask.bit_count()
        runs = [*_runs(mask), *_runs(EVERYWHERE & ~mask)]
        ends = np.cumsum([width for _, width in runs]).tolist()
        self.moves = [(low, width, BITS - end) for (low, width), end in zip(runs, ends, strict=True)]

    def packed(self, hashes: Array) -> Array:
        """Return the hashes with the mask's bits on top."""
        return self._moved(hashes, [(low, width, to) for low, width, to in self.moves])

    def unpacked(self, hashes: Array) -> Array:
        """Return the hashes as they were."""
        return self._moved(hashes, [(to, width, low) for low, width, to in self.moves])

    def _moved(self, hashes: Array, moves: list[tuple[int, int, int]]) -> Array:
        moved = np.zeros(len(hashes), np.uint64)
        for start in range(0, len(hashes), BLOCK):
            part, into = hashes[start : start + BLOCK], moved[start : start + BLOCK]
            for source, width, target in moves:
                into |= (part >> np.uint64(source) & np.uint64((1 << width) - 1)) << np.uint64(target)
        return moved


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield (lowest bit, width) of each run of set bits."""
    bit = 0
    while mask >> bit:
        if mask >> bit & 1:
            low = bit
            while mask >> bit & 1:
                bit += 1
            yield low, bit - low
        bit += 1


def _within_buckets(order: Array, lengths: Array, shift: np.uint64, radius: int) -> Iterator[Pairs]:
    """Yield close pairs of sorted hashes that share the bits above `shift`: first each with its next, then with the one
    after, …"""
    step = 1
    while 4 * int(np.maximum(lengths - step, 0).sum()) > len(
        order
    ):  # most have such a partner: whole slices are fastest
        yield from _neighbours(order, step, radius)
        step += 1
    at = (
        np.flatnonzero((order[step:] ^ order[: len(order) - step]) >> shift == 0)
        if step < len(order)
        else np.zeros(0, np.int64)
    )
    while len(at):
        apart = order[at] ^ order[at + step]
        same = apart >> shift == 0
        close = at[same & (np.bitwise_count(apart) <= radius)]
        if len(close):
            yield order[close], order[close + step]
        step += 1
        at = at[same]
        at = at[at + step < len(order)]


def _neighbours(order: Array, step: int, radius: int) -> Iterator[Pairs]:
    """Yield the pairs (i, i + step) that are close; neighbours in another bucket may be among them, and are as
    close."""
    for start in range(0, len(order) - step, BLOCK):
        one = order[start : min(start + BLOCK, len(order) - step)]
        other = order[start + step : start + step + len(one)]
        close = np.flatnonzero(np.bitwise_count(one ^ other) <= radius)
        if len(close):
            yield one[close], other[close]


def _crowd(members: Array, bands: Bands, known: Known | None) -> Iterator[Pairs]:
    """Yield close pairs that connect a bucket, without comparing all its members where that can be spared.

    Stars first: a pivot and all that are close to it. Those within half the radius are close to one another too, so
    none of them needs to be a pivot again: a dense crowd is one component after few stars. What is not in the largest
    component is then compared with everything, or, where that costs more, the crowd's remaining bits are cut into bands
    once more.
    """
    labels = known[1][np.searchsorted(known[0], members)] if known else np.arange(len(members))
    if (labels == labels[:1]).all():
        return
    one, other = _stars(members, bands.radius)
    if len(one):
        yield members[one], members[other]
    same = np.unique(labels, return_index=True, return_inverse=True)
    labels = components(
        len(members), np.concatenate([one, same[1][same[2]]]), np.concatenate([other, np.arange(len(members))])
    )
    outside = np.flatnonzero(labels != np.bincount(labels).argmax())
    if not len(outside):
        return
    finer = choose_bands(members, bands.radius, bands.free) if len(members) > HOT else bands
    if finer.tables and len(outside) * 8 > len(members):
        for table in range(len(finer.tables)):
            yield from connecting_pairs(members, finer, table, known)
        return
    yield from _all_with_all(members[outside], members, bands.radius)


def _stars(members: Array, radius: int) -> Pairs:
    """Return the places of pivots and of the members close to them; at most PIVOTS stars."""
    one: list[Array] = [np.zeros(0, np.int64)]
    other: list[Array] = [np.zeros(0, np.int64)]
    left = np.arange(len(members))
    for _ in range(PIVOTS if len(members) > 2 * PIVOTS else 0):
        if not len(left):
            break
        pivot = left[0]
        distance = np.bitwise_count(members ^ members[pivot])
        close = np.flatnonzero(distance <= radius)
        one.append(np.full(len(close), pivot))
        other.append(close)
        left = left[distance[left] > radius // 2]
    return np.concatenate(one), np.concatenate(other)


def _all_with_all(some: Array, all_: Array, radius: int) -> Iterator[Pairs]:
    """Yield the close pairs of some with all, a block at a time."""
    rows = max(1, BLOCK // max(1, len(all_)))
    for start in range(0, len(some), rows):
        block = some[start : start + rows]
        one, other = np.nonzero(np.bitwise_count(block[:, None] ^ all_[None, :]) <= radius)
        apart = block[one] != all_[other]
        if apart.any():
            yield block[one[apart]], all_[other[apart]]
