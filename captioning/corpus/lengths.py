"""Say how long texts are and how rich their words, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from captioning.corpus.words import Words

Numbers = np.ndarray[Any, np.dtype[Any]]
LONGEST = 2000
"""Words; longer texts are counted as this long where quantiles are told."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class LengthFacts:
    """Words of the texts of one kind: how many texts, mean, and the lengths at QUANTILES, of texts that are none
    empty."""

    texts: int
    mean: float
    quantiles: dict[str, int]


class Lengths:
    """Counts texts by their words."""

    def __init__(self) -> None:
        self.by_length = np.zeros(LONGEST + 1, np.int64)
        self.total = 0

    def add(self, counts: Numbers) -> None:
        """Count texts with so many words each; those without any are left out."""
        self.by_length += np.bincount(np.minimum(counts, LONGEST), minlength=LONGEST + 1)
        self.total += int(counts.sum())

    def facts(self) -> LengthFacts | None:
        """Return what there is to say, none without any text."""
        counts = self.by_length.copy()
        counts[0] = 0
        below, texts = np.cumsum(counts), int(counts.sum())
        if not texts:
            return None
        found = {f"{share:.0%}": int(np.searchsorted(below, share * texts)) for share in QUANTILES}
        return LengthFacts(texts, self.total / texts, found)


@dataclass(frozen=True)
class VocabularyFacts:
    """Different words among the first `tokens` words of a sample; `per_token`: types by tokens, 0..1."""

    tokens: int
    types: int
    per_token: float


def vocabulary(samples: Mapping[str, Sequence[str | None]], most: int) -> dict[str, VocabularyFacts]:
    """Return kind of text -> its vocabulary, of as many words of each kind: what the shortest sample has, at most
    `most`. Kinds without a word are left out."""
    cut = {kind: Words.of(pa.array(texts, pa.string())) for kind, texts in samples.items()}
    sizes = [len(words.index) for words in cut.values() if len(words.index)]
    tokens = min([most, *sizes])
    found = {}
    for kind, words in cut.items():
        if len(words.index):
            types = len(set(islice(_lower(words), tokens)))
            found[kind] = VocabularyFacts(tokens, types, types / tokens)
    return found


def _lower(words: Words) -> Iterator[str]:
    return (words.lower[number] for number in words.index.tolist())
