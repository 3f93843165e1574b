"""Fix the order of an epoch by (seed, epoch) alone: shards in an order, windows of them, samples mixed in a window."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Whole = npt.NDArray[np.int64]
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SPAN = 1 << 64


def draw(*words: object) -> int:
    """Return a number in [0, 2**64) that depends on the words alone: the head of the md5 of the words joined by ':'."""
    text = ":".join(map(str, words)).encode()
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest()[:16], 16)


def draws(uid_N2: Numbers, *words: object) -> Numbers:
    """Return a number in [0, 2**64) for each uid, (N,), that depends on the uid and the words alone.

    Both halves of the uid go through the finaliser of SplitMix64 (Steele, Lea, Flood 2014), keyed by the md5 of the
    words: two multiplications and three shifts for 64 bits, over whole columns.
    """
    key = np.uint64(draw(*words))
    return _mixed(_mixed(uid_N2[:, 0] ^ key) + uid_N2[:, 1])


def _mixed(numbers: Numbers) -> Numbers:
    mixed: Numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class Span:
    """Places `start` to `stop` of one window of an epoch, which hold a run of the epoch's samples."""

    epoch: int
    window: int
    start: int
    stop: int


@dataclass(frozen=True)
class Epoch:
    """An epoch's windows: the numbers of their shards, and where each begins among the epoch's samples."""

    windows: tuple[tuple[int, ...], ...]
    starts: Whole
    """(windows + 1,): the last is the number of samples."""


class Order:
    """The endless order of a set of shards: epoch after epoch, each with every sample once."""

    def __init__(self, names: Sequence[str], counts_S: Whole, seed: int, window: int) -> None:
        """names and counts_S (S,): the shards, and how many samples of each are read. window: shards in a window.

        Raises ValueError for no samples.
        """
        self.names, self.counts_S, self.seed, self.window = list(names), counts_S, seed, window
        self.samples = int(counts_S.sum())
        if not self.samples:
            raise ValueError("no sample is left to read")
        self.epoch = lru_cache(2)(self._epoch)

    def _epoch(self, epoch: int) -> Epoch:
        """Return the windows of an epoch: shards by draw(name, epoch, seed), those without samples left out."""
        filled = [number for number in range(len(self.names)) if self.counts_S[number]]
        filled.sort(key=lambda number: draw(self.names[number], epoch, self.seed))
        windows = tuple(tuple(filled[start : start + self.window]) for start in range(0, len(filled), self.window))
        sizes = [int(self.counts_S[list(window)].sum()) for window in windows]
        return Epoch(windows, np.cumsum([0, *sizes], dtype=np.int64))

    def spans(self, start: int, stop: int) -> list[Span]:
        """Return where the positions `start` to `stop` of the endless order lie, in their order."""
        found = []
        while start < stop:
            number, place = divmod(start, self.samples)
            starts = self.epoch(number).starts
            window = int(np.searchsorted(starts, place, side="right")) - 1
            end = min(stop - number * self.samples, int(starts[window + 1]))
            found.append(Span(number, window, place - int(starts[window]), end - int(starts[window])))
            start = number * self.samples + end
        return found
