"""Look, before the first step, whether the codes have the captions that `train.captions` names."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.loading.captions import drawable
from tokenize_shards.packed_index import PackedIndex
from tokenize_shards.samples import CodeSample, LoaderError, Shard, indexed_samples

ENOUGH = 10_000
"""Samples that are counted: packing has shuffled them, so they stand for all. More are read only while a source has not
been seen."""


@dataclass
class Sources:
    """What was counted: samples, those with words from each source, those without any wanted one, those without any."""

    wanted: tuple[str, ...]
    samples: int = 0
    having: Counter[str] = field(default_factory=Counter)
    without: int = 0
    empty: int = 0

    def count(self, sample: CodeSample) -> None:
        """Count one sample."""
        there = {source for source, _ in drawable(sample.captions)}
        self.samples += 1
        self.having.update(there)
        if not there.intersection(self.wanted):
            self.without += 1
            self.empty += not there

    @property
    def missing(self) -> list[str]:
        """Return the wanted sources that no sample has."""
        return [source for source in self.wanted if not self.having[source]]


def check_sources(
    index: PackedIndex, weights: Mapping[str, float], beside: Collection[str] = (), enough: int | None = None
) -> str | None:
    """Return what to tell of samples that have none of the weighted sources, None where all have one.

    beside: sources that joined tables bring, which are not looked for. Counts until `enough`, or ENOUGH, and on until
    each source was seen. Raises LoaderError for a source that no sample has.
    """
    wanted = [source for source, weight in weights.items() if weight > 0]
    sources = Sources(tuple(source for source in wanted if source not in beside))
    if not sources.wanted:
        return None
    for sample in _streamed(index.shards):
        sources.count(sample)
        if sources.samples >= (enough or ENOUGH) and not sources.missing:
            break
    if sources.missing:
        counts = sorted(sources.having.items())
        there = ", ".join(f"{name} ({count:,} of {sources.samples:,})" for name, count in counts)
        raise LoaderError(
            f"train.captions: no sample has a caption from {sources.missing[0]!r}; the sources that there are:"
            f" {there or 'none'}"
        )
    if not sources.without or len(sources.wanted) < len(wanted):
        return None
    which = "all" if sources.samples == index.samples else "the first"
    share = f"{sources.without:,} of {which} {sources.samples:,} samples"
    return (
        f"captions: {share} have none from {', '.join(sources.wanted)}: {sources.without - sources.empty:,} are trained"
        f" on another source's, {sources.empty:,} on an empty one"
    )


def _streamed(shards: Iterable[Shard]) -> Iterator[CodeSample]:
    for shard in shards:
        if shard.samples:
            yield from indexed_samples(shard)
