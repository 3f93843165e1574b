"""Read code shards in an order that a seed fixes and a step number finds again."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from manifests.store import is_remote
from pipeline.recipes.captions import FIT, OF_INPUT, RECAPTION, SHORT
from tokenize_shards.samples import (
    Codes,
    CodeSample,
    Features,
    LoaderError,
    Shard,
    class_of,
    first_sample,
    only_made_by,
    read_samples,
)


@dataclass(frozen=True)
class Example:
    """One picture as one step reads it: a crop and a caption have been drawn."""

    uid: str
    codes_N: Codes
    caption: str
    features: Features | None


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many, and how many pictures it reads per step."""

    rank: int = 0
    world: int = 1
    pictures: int = 1


class Pictures(Protocol):
    """A set of code samples that repeats for ever, epoch after epoch, each in its own order."""

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on, as (epoch, sample)."""
        ...


def draw(*words: object) -> int:
    """Return a number in [0, 2**64) that depends on the words alone: the head of the md5 of the words joined by ':'."""
    text = ":".join(map(str, words)).encode()
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest()[:16], 16)


class MemoryPictures:
    """All samples in memory: every process holds all and takes its slice of each step, so the order never depends on
    their number."""

    def __init__(self, samples: Sequence[CodeSample], seed: int, share: Share) -> None:
        self.samples = sorted(samples, key=lambda sample: sample.uid)
        self.seed, self.share = seed, share

    def order(self, epoch: int) -> list[CodeSample]:
        """Return the samples as this epoch reads them."""
        return sorted(self.samples, key=lambda sample: draw(sample.uid, epoch, self.seed))

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on; a batch may cross epochs."""
        share, count = self.share, len(self.samples)
        batch, step, epoch, order = share.pictures * share.world, first, -1, list[CodeSample]()
        while True:
            start = step * batch + share.rank * share.pictures
            drawn: list[tuple[int, CodeSample]] = []
            for position in range(start, start + share.pictures):
                if position // count != epoch:
                    epoch, order = position // count, self.order(position // count)
                drawn.append((epoch, order[position % count]))
            yield drawn
            step += 1


class StreamedPictures:
    """Shards read one after another: shards in an order per epoch, every world-th to this process, samples in an order
    within each shard.

    Packing has shuffled all samples over the shards already. One shard is in memory at a time, two of a run in a store.
    """

    def __init__(self, shards: Sequence[Shard], seed: int, share: Share) -> None:
        self.shards = [shard for shard in shards if shard.samples]
        if len(self.shards) < share.world:
            raise LoaderError(
                f"{len(self.shards)} shard(s) for {share.world} processes: use smaller shards (pretokenize.shard_rows),"
                " fewer processes, or hold them in memory (train.memory_bytes)"
            )
        self.seed, self.share = seed, share
        self.tokenizer = first_sample(shards).tokenizer

    def order(self, epoch: int) -> list[Shard]:
        """Return this process's shards as this epoch reads them: webdataset's split_by_node, before it skips whole
        shards."""
        return sorted(self.shards, key=lambda shard: draw(shard.path.name, epoch, self.seed))[
            self.share.rank :: self.share.world
        ]

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on; a batch may cross epochs."""
        drawn: list[tuple[int, CodeSample]] = []
        for pair in self._from(first * self.share.pictures):
            drawn.append(pair)
            if len(drawn) == self.share.pictures:
                yield drawn
                drawn = []

    def _from(self, skip: int) -> Iterator[tuple[int, CodeSample]]:
        for (epoch, _, passed), samples in self._read(self._wanted(skip)):
            yield from ((epoch, sample) for sample in samples[passed:])

    def _wanted(self, skip: int) -> Iterator[tuple[int, Shard, int]]:
        """Yield (epoch, shard, how many of its samples are passed over) behind the first `skip` samples."""
        for epoch in itertools.count():
            for shard in self.order(epoch):
                if skip < shard.samples:
                    yield epoch, shard, skip
                skip = max(0, skip - shard.samples)

    def _read(
        self, wanted: Iterator[tuple[int, Shard, int]]
    ) -> Iterator[tuple[tuple[int, Shard, int], list[CodeSample]]]:
        """Yield each wanted shard with its samples; of a store the next one is fetched meanwhile."""
        if not is_remote(self.shards[0].path):
            yield from ((one, self._mixed(one[1], one[0])) for one in wanted)
            return
        pool = ThreadPoolExecutor(1)
        try:
            before, coming = (one := next(wanted)), pool.submit(self._mixed, one[1], one[0])
            for one in wanted:
                ahead = pool.submit(self._mixed, one[1], one[0])
                yield before, coming.result()
                before, coming = one, ahead
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _mixed(self, shard: Shard, epoch: int) -> list[CodeSample]:
        samples = only_made_by(self.tokenizer, read_samples(shard), shard.path)
        return sorted(samples, key=lambda sample: draw(sample.uid, epoch, self.seed))


@dataclass(frozen=True)
class Limits:
    """When shards are held in memory, and how many pictures of them."""

    memory_bytes: int
    max_pictures: int | None
    seed: int


def open_pictures(shards: Sequence[Shard], limits: Limits, share: Share) -> Pictures:
    """Return the samples in memory where they fit or are capped, else streamed. Raises LoaderError."""
    if limits.max_pictures is None and sum(shard.bytes for shard in shards) > limits.memory_bytes:
        return StreamedPictures(shards, limits.seed, share)
    tokenizer = first_sample(shards).tokenizer
    samples = [sample for shard in shards for sample in only_made_by(tokenizer, read_samples(shard), shard.path)]
    if limits.max_pictures is not None:
        samples = sorted(samples, key=lambda sample: draw(sample.uid, limits.seed))[: limits.max_pictures]
    return MemoryPictures(samples, limits.seed, share)


def chooser(captions: Mapping[str, float], seed: int, classes: int = 0) -> Callable[[int, CodeSample], Example]:
    """Return the rule that draws a crop and a caption for (epoch, sample), by hash(uid, epoch, seed).

    captions: source -> weight. Sources that a sample lacks, or whose caption has no words, are left out of its draw;
    where none is left, its first caption with words is used, or an empty one. With `classes` the caption is the number
    of the sample's class; LoaderError is raised where it has none below it.
    """

    def choose(epoch: int, sample: CodeSample) -> Example:
        """Return the sample with the crop and the caption that this epoch draws."""
        crop = draw(sample.uid, epoch, seed, "crop") % len(sample.codes_KN)
        if classes:
            return Example(sample.uid, sample.codes_KN[crop], str(class_of(sample, classes)), None)
        there = drawable(sample.captions)
        text = _drawn_caption(there, captions, draw(sample.uid, epoch, seed, "caption") / 2**64)
        stored = sample.features if text and text == dict(there).get(sample.features_of) else None
        return Example(sample.uid, sample.codes_KN[crop], text, stored)

    return choose


def drawable(captions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the captions, (source, text), that have more than white space in them, and what else names them:
    `recaption` and `recaption_short` are those of the first captioner, and NAME_fit is the whole caption where all of
    it fits, none where not even its first sentence does."""
    there = [caption for caption in captions if caption[1].strip()]
    texts, given = dict(there), {source for source, _ in captions}
    names = [source for source in texts if source not in OF_INPUT and not source.endswith((SHORT, FIT))]
    also = {name + FIT: texts[name] for name in names}
    if names:
        also |= {RECAPTION + end: texts[names[0] + end] for end in ("", SHORT) if names[0] + end in texts}
    return [*there, *((source, text) for source, text in also.items() if source not in given)]


def _drawn_caption(there: Sequence[tuple[str, str]], weights: Mapping[str, float], share: float) -> str:
    candidates = [(text, weights[source]) for source, text in there if weights.get(source, 0) > 0]
    rest = share * sum(weight for _, weight in candidates)
    for text, weight in candidates:
        rest -= weight
        if rest < 0:
            return text
    return candidates[-1][0] if candidates else there[0][1] if there else ""
