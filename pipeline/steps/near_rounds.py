"""Join more pairs than a worker should hold to components: in rounds, part by part, on disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from filters.forest import distinct_pairs, large_star, small_star, smallest_near
from filters.hamming import MIX, Array, Pairs, part_of
from pipeline.execution.shuffle import Slices, parts_for
from pipeline.execution.slices import write_slices

PART_BYTES = 8_000_000
"""Bytes of pairs of a part, and that are held before they are written."""
EDGES = pa.schema([("node", pa.uint64()), ("near", pa.uint64())])


class Rounds:
    """Pairs on disk, by the part of each end, in both directions.

    A round is a large star and a small star: pairs come to hang on the smallest of their component, in a number of
    rounds that grows with the logarithm of its width. Memory holds a part; the folder three times the pairs.
    """

    def __init__(self, folder: Path, pairs: int) -> None:
        self._folder = folder
        self._parts = parts_for(2 * pairs, EDGES, most=PART_BYTES)

    def components(self, pairs: Iterator[Pairs]) -> Iterator[Pairs]:
        """Yield (smallest of its component, hash) of all hashes of these pairs, the smallest with itself."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        edges, before = self._written("pairs", (self._both(*pair) for pair in pairs)), None
        while (now := self._sum(edges)) != before:
            before = now
            larger = self._written("large", (large_star(*self._of_part(edges, part)) for part in range(self._parts)))
            small = (small_star(*self._of_part(larger, part)) for part in range(self._parts))
            edges = self._written("small", (self._both(*pair) for pair in small))
        for part in range(self._parts):
            node, near = self._of_part(edges, part)
            member = near < node
            yield near[member], node[member]
            first, least = smallest_near(node, near)
            roots = node[first][least > node[first]]
            yield roots, roots
        shutil.rmtree(self._folder)

    def _both(self, one: Array, other: Array) -> Pairs:
        return np.concatenate([one, other]), np.concatenate([other, one])

    def _written(self, name: str, pairs: Iterator[Pairs]) -> Slices:
        """Write pairs by the part of the first of each."""
        path = self._folder / f"{name}.slices"
        with path.open("wb") as file:
            pieces = (
                (part_of(node, self._parts), pa.record_batch([pa.array(node), pa.array(near)], schema=EDGES))
                for node, near in pairs
            )
            write_slices(file, self._parts, EDGES, pieces, PART_BYTES)
        return Slices((path,), EDGES)

    def _of_part(self, edges: Slices, part: int) -> Pairs:
        rows = edges.of_part(part)
        return distinct_pairs(rows["node"].to_numpy(), rows["near"].to_numpy())

    def _sum(self, edges: Slices) -> tuple[int, int]:
        """Return how many distinct pairs there are, and a sum that tells other pairs, whatever their order."""
        count = total = 0
        for part in range(self._parts):
            node, near = self._of_part(edges, part)
            node, near = node[near < node], near[near < node]
            mixed = (node * np.uint64(MIX) ^ near) * np.uint64(MIX)
            mixed ^= mixed >> np.uint64(29)
            count, total = count + len(node), (total + int((mixed * np.uint64(MIX)).sum())) % (1 << 64)
        return count, total
