"""Fit how a figure of a step (seconds, memory, bytes) grows with its rows, from what was measured at a few sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb, log2
from typing import Any, NamedTuple

import numpy as np

from filters.hamming import BITS, MOST_TABLES, MOVE_NS, PAIR_NS, SORT_NS

CLOSE = 0.1
"""A law whose largest relative error is at most this is taken; else the next shape is tried."""
FLAT, FLAT_MIB = 1.15, 25.0
"""A peak that is at most this many times another, or so much more, is taken as the same."""
RADIUS = 6
"""Bits in which near duplicates may differ, for the shape of comparing hashes; the recipe's own hardly changes it."""


class Point(NamedTuple):
    """What was measured once: rows of the step, fetch shards of the run, the figure."""

    rows: float
    shards: float
    value: float


@dataclass(frozen=True)
class Law:
    """A figure: fixed + per_row x rows + per_shard x shards + steep x shape(rows).

    `shape`: "", "near" (the work of comparing hashes), "tables" (hashes moved for it) or "square"; `error`: the largest
    relative error over what it was fitted to.
    """

    fixed: float
    per_row: float
    per_shard: float = 0.0
    steep: float = 0.0
    shape: str = ""
    error: float = 0.0

    def at(self, rows: float, shards: float = 0.0) -> float:
        """Return the figure for so many rows in so many fetch shards."""
        return self.fixed + self.per_row * rows + self.per_shard * shards + self.steep * _shape(self.shape, rows)


def _shape(name: str, rows: float) -> float:
    if name in ("near", "tables"):
        work, tables = near_work(rows)
        return work if name == "near" else rows * tables
    return rows * rows if name else 0.0


def near_work(rows: float, radius: int = RADIUS) -> tuple[float, int]:
    """Return nanoseconds of moving, sorting and comparing so many random hashes with the best cut into bands, and its
    tables (see filters/hamming.py: `choose_bands`); 0 tables: all pairs."""
    rows = max(rows, 2.0)
    best, cut = rows * rows / 2 * PAIR_NS, 0
    for k in range(1, BITS - radius + 1):
        tables, bits = comb(radius + k, k), BITS * k / (radius + k)
        sorting = tables * rows * (log2(rows) * SORT_NS + MOVE_NS)
        if tables > MOST_TABLES or sorting >= best:
            break
        work = sorting + tables * rows * rows / 2 / 2**bits * PAIR_NS
        best, cut = min((best, cut), (work, tables))
    return best, cut


def fit(
    points: Sequence[Point], shapes: Sequence[str] = ("", "square"), slack: float = 0.0, crowded: Sequence[Point] = ()
) -> Law:
    """Return the law of these points, no term of it negative: the first of the shapes that is close to all of them.

    Where none is, the nearest. Where growth slows down, small sizes work in another way: the line through the two
    largest is taken. `slack`: what a figure may be off and mean nothing. `crowded`: points of runs with
    many small shards: what they take more than the rows' law says is counted to their shards.
    """
    points = sorted(points)
    if not any(point.value for point in points):
        law = Law(0.0, 0.0)
    elif points[0].rows == points[-1].rows:  # nothing tells what is fixed: all of it is counted to the rows
        law = _of_one(points[-1], shapes[0])
    else:
        law = _of_sizes(points, shapes, slack)
    return _with_shards(law, points, crowded)


def _of_one(point: Point, shape: str) -> Law:
    if not point.rows:
        return Law(point.value, 0.0)
    if shape in ("near", "tables"):
        return Law(0.0, 0.0, steep=point.value / _shape(shape, point.rows), shape=shape)
    return Law(0.0, point.value / point.rows)


def _of_sizes(points: Sequence[Point], shapes: Sequence[str], slack: float) -> Law:
    first, before, last = points[0], points[-2], points[-1]
    slower = len(points) > 2 and _slope(before, last) <= _slope(first, before)
    tried = []
    for shape in shapes:
        if shape == "square" and (slower or len(points) < 3):  # two points tell a line
            continue
        tried.append(_fitted([before, last] if slower and not shape else points, shape, slack))
        if tried[-1].error <= CLOSE:
            return tried[-1]
    return min(tried, key=lambda law: law.error)


def _slope(one: Point, other: Point) -> float:
    return (other.value - one.value) / ((other.rows - one.rows) or 1.0)


def _fitted(points: Sequence[Point], shape: str, slack: float) -> Law:
    from scipy.optimize import nnls

    in_rows = 1.0 if shape in ("", "square") else 0.0  # comparing hashes is all that grows
    matrix = np.array([[1.0, in_rows * point.rows, _shape(shape, point.rows)] for point in points])
    values = np.array([point.value for point in points], float)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    weight = 1 / np.maximum(np.maximum(np.abs(values), slack), np.abs(values).max() * 1e-3)
    found, _ = nnls(matrix / scale * weight[:, None], values * weight)
    found = found / scale
    off = np.maximum(np.abs(matrix @ found - values) - slack, 0.0)
    fixed, per_row, steep = map(float, found)
    return Law(fixed, per_row, 0.0, steep, shape, float((off * weight).max()))


def _with_shards(law: Law, points: Sequence[Point], crowded: Sequence[Point]) -> Law:
    """Count to the shards what runs of small ones take more; the other runs' share of that comes off the rows."""
    usual = max((point.shards / point.rows for point in points if point.rows), default=0.0)
    small = [point for point in crowded if point.shards > 2 * usual * point.rows]
    more = [(point.value - law.at(point.rows)) / (point.shards - usual * point.rows) for point in small]
    each = max(0.0, min(more, default=0.0))
    return replace(law, per_shard=each, per_row=max(0.0, law.per_row - each * usual))


def flat(points: Sequence[Point], lone: bool, crowded: Sequence[Point] = ()) -> Law | None:
    """Return the law of a peak that is the same in the two largest runs; None of one that grows. `lone`: the largest
    run alone works in its way (by parts), and its peak is taken as that of every larger one."""
    last: list[Any] = sorted(points)[-1:] if lone else sorted(points)[-2:]
    peaks = [point.value for point in last]
    if max(peaks) > max(FLAT * min(peaks), min(peaks) + FLAT_MIB):
        return None
    law = _with_shards(Law(max(peaks), 0.0), last, crowded)
    return replace(law, fixed=law.fixed - law.per_shard * last[-1].shards)
