"""Choose the samples of a set that are read: a split by hash(uid), the first so many by hash, a bit per sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.loading.order import SPAN, Numbers, Whole, draws
from tokenize_shards.packed_index import PackedIndex

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Bits:
    """A bit per sample of an index, packed by eights: 50 million samples take 6 MB."""

    packed: npt.NDArray[np.uint8]
    starts_S: Whole
    """Place of each shard's first bit."""

    def of(self, number: int, samples: int) -> Mask:
        """Return which of a shard's samples are set: (samples,)."""
        start = int(self.starts_S[number])
        first = start // 8
        bits = np.unpackbits(self.packed[first : (start + samples + 7) // 8], bitorder="little")
        return bits[start - 8 * first : start - 8 * first + samples].astype(bool)


@dataclass(frozen=True)
class Selection:
    """Which samples are read.

    validation: share of the uids, by a hash that no seed changes, that is held out. held_out: read just those, instead
    of the others. bound: of the others, only uids whose draw under `seed` is not above it; None: all. bits: only
    samples whose bit is set.
    """

    validation: float = 0.0
    held_out: bool = False
    bound: int | None = None
    seed: int = 0
    bits: Bits | None = None

    @property
    def is_all(self) -> bool:
        """Tell whether every sample is read."""
        return not self.validation and not self.held_out and self.bound is None and self.bits is None

    def of(self, number: int, uid_N2: Numbers) -> Mask:
        """Return which samples of a shard are read: (N,)."""
        mask = self._split(number, uid_N2)
        if self.bound is not None:
            mask &= draws(uid_N2, "picture", self.seed) <= np.uint64(self.bound)
        return mask

    def _split(self, number: int, uid_N2: Numbers) -> Mask:
        mask: Mask = np.ones(len(uid_N2), bool)
        if self.validation or self.held_out:
            out = draws(uid_N2, "validation") < np.uint64(min(SPAN - 1, int(self.validation * SPAN)))
            mask = out if self.held_out else ~out
        if self.bits is not None:
            mask &= self.bits.of(number, len(uid_N2))
        return mask

    def counts(self, index: PackedIndex) -> Whole:
        """Return how many samples of each shard are read: (S,) int64. Reads every uid, unless all samples are."""
        if self.is_all:
            return np.array([shard.samples for shard in index.shards], np.int64)
        return np.array([int(self.of(number, uid_N2).sum()) for number, uid_N2 in index.uids()], np.int64)

    def smallest(self, index: PackedIndex, count: int) -> int:
        """Return the bound below which `count` samples of this selection lie, by their draw under `seed`: that of the
        set's last one where there are fewer. Memory holds `count` numbers and one shard's."""
        kept: Numbers = np.zeros(0, np.uint64)
        for drawn in self._drawn(index):
            kept = np.concatenate((kept, drawn))
            if len(kept) > count:
                kept = np.partition(kept, count - 1)[:count]
        return int(kept.max(initial=0))

    def _drawn(self, index: PackedIndex) -> Iterator[Numbers]:
        for number, uid_N2 in index.uids():
            yield draws(uid_N2, "picture", self.seed)[self._split(number, uid_N2)]
