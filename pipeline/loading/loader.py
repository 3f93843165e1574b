"""Yield batches of one set of shards, or of a blend of several: any process's share of any step, found at once."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.loading.ahead import ahead
from pipeline.loading.batch import Batch, Expected, Reader, Slots, joined
from pipeline.loading.blend import Blend
from pipeline.loading.files import ShardFiles
from pipeline.loading.order import Order
from pipeline.loading.window import Source, Window, open_window
from tokenize_shards.samples import LoaderError


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many, and how many pictures it reads per step."""

    rank: int = 0
    world: int = 1
    pictures: int = 1


@dataclass(frozen=True)
class Reading:
    """How shards are read: shards in a window, steps ahead, bytes of a store's shards that stay in memory."""

    window: int = 8
    prefetch: int = 0
    memory_bytes: int = 0


class CodeSet:
    """The selected samples of one tier in their endless order. One thread uses it."""

    def __init__(self, source: Source, expected: Expected, reading: Reading) -> None:
        """Raises LoaderError where the selection leaves nothing."""
        self.source, self.index, self.expected = source, source.index, expected
        index = source.index
        names = [shard.path.name for shard in index.shards]
        try:
            self.order = Order(names, source.selection.counts(index), expected.seed, reading.window)
        except ValueError as error:
            folder = index.shards[0].path.parent if index.shards else index.path.parent
            say = (
                "no picture is held out: raise train.validation"
                if source.selection.held_out
                else "no sample is left to read: look at train.where, or lower train.validation"
            )
            raise LoaderError(f"{folder}: of {index.samples:,} {say}") from error
        self.files = ShardFiles(index.shards, reading.memory_bytes)
        self._reader = Reader(self.files, expected)
        self._window = lru_cache(2)(self._open)

    @property
    def samples(self) -> int:
        """Return the number of samples in an epoch."""
        return self.order.samples

    def batch(self, start: int, stop: int) -> Batch:
        """Return the samples at the positions `start` to `stop` of the endless order."""
        parts = []
        for span in self.order.spans(start, stop):
            window = self._window(span.epoch, span.window)
            parts.append(self._reader.read(Slots(window, slice(span.start, span.stop), span.epoch)))
        return joined(parts, 0)

    def _open(self, epoch: int, number: int) -> Window:
        """Return a window, and have the next one's shards fetched."""
        windows = self.order.epoch(epoch).windows
        last = number + 1 == len(windows)
        after = self.order.epoch(epoch + 1).windows[0] if last else windows[number + 1]
        before = windows[max(0, number - 1)]
        self.files.keep({*before, *windows[number], *after})
        self.files.expect(windows[number])
        self.files.expect(after)
        return open_window(self.source, windows[number], (epoch, self.expected.seed))

    def close(self) -> None:
        """Close the files."""
        self.files.close()


class Loader:
    """Sets of codes as one endless stream of steps."""

    def __init__(self, sets: Sequence[CodeSet], share: Share, prefetch: int = 0, blend: Blend | None = None) -> None:
        """blend: where there are several sets."""
        self.sets, self.share, self.prefetch = sets, share, prefetch
        self.blend = blend or Blend([1], 0)
        self.samples = sum(one.samples for one in sets)
        """Samples of one pass over all: of all sets, or as many as a blend by epochs has."""

    def steps(self, first: int, stride: int = 1) -> Iterator[Batch]:
        """Yield this process's share of each step, or of every `stride`th, from step `first` on, for ever."""
        return ahead(map(self.step, itertools.count(first, stride)), self.prefetch)

    def step(self, number: int) -> Batch:
        """Return this process's share of one step."""
        share = self.share
        start = number * share.pictures * share.world + share.rank * share.pictures
        return self.batch(start, start + share.pictures, number)

    def batch(self, start: int, stop: int, step: int = 0) -> Batch:
        """Return the samples at these positions of the stream."""
        if len(self.sets) == 1:
            return joined([self.sets[0].batch(start, stop)], step)
        run = self.blend.run(start, stop)
        parts, places = [], []
        for number, one in enumerate(self.sets):
            mine = np.flatnonzero(run.set_B == number)
            if len(mine):  # of consecutive positions, those of one set are consecutive samples of it
                parts.append(one.batch(int(run.place_B[mine[0]]), int(run.place_B[mine[-1]]) + 1))
                places.append(mine)
        return joined(parts, step, np.argsort(np.concatenate(places)))

    def close(self) -> None:
        """Close the files."""
        for one in self.sets:
            one.close()
