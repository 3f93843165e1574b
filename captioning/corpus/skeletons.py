"""Find runs of words that come back over many captions once their names and numbers are masked."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from captioning.corpus.words import FACTORS, Words

Numbers = np.ndarray[Any, np.dtype[Any]]
LENGTH = 8
"""Words of a skeleton."""
NAME, NUMBER = "<name>", "<number>"
NAME_HASH, NUMBER_HASH = np.uint64(0x6E616D65), np.uint64(0x6E756D62)


def masked(words: Words) -> tuple[Numbers, Numbers, Numbers]:
    """Return (first, hash, place) of the masked words: where each text's begin and the end, what each word is (uint64),
    and its place among `words.index`.

    A word with a digit is a number; one with a capital letter that begins no sentence is a name. Several of a kind in a
    row are one. In scripts without capitals names stay.
    """
    digit = np.array([any(map(str.isdigit, word)) for word in words.unique] + [False])
    capital = np.array([word[:1].isupper() and word != "I" for word in words.unique] + [False])
    if not len(words.index):
        return words.first, np.zeros(0, np.uint64), np.zeros(0, np.int64)
    hashes = words.hashes[words.index]
    hashes[capital[words.index] & ~words.initial] = NAME_HASH
    hashes[digit[words.index]] = NUMBER_HASH
    again = np.concatenate(
        [[False], (hashes[1:] == hashes[:-1]) & ((hashes[1:] == NAME_HASH) | (hashes[1:] == NUMBER_HASH))]
    )
    begins = words.first[:-1][words.counts > 0]
    again[begins] = False
    kept = np.concatenate([[0], np.cumsum(~again)])
    return kept[words.first], hashes[~again], np.flatnonzero(~again)


def grams(words: Words) -> tuple[Numbers, Numbers, Numbers]:
    """Return (key, text, place) of every run of LENGTH masked words: uint64, number of its text, place of its first
    word among `words.index`."""
    first, hashes, places = masked(words)
    if len(hashes) < LENGTH:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    runs = len(hashes) - LENGTH + 1
    keys = np.zeros(runs, np.uint64)
    for step, factor in enumerate(FACTORS[:LENGTH]):
        keys += hashes[step : step + runs] * factor
    texts = np.repeat(np.arange(len(words)), np.diff(first))
    whole = texts[:runs] == texts[LENGTH - 1 :]
    return keys[whole], texts[:runs][whole], places[:runs][whole]


def shown(words: Words, place: int) -> list[str]:
    """Return the masked words of the run that begins at a place of `words.index`."""
    text = int(np.searchsorted(words.first, place, side="right")) - 1
    said = list[str]()
    for number in range(place, int(words.first[text + 1])):
        word = words.unique[words.index[number]]
        is_name = word[:1].isupper() and word != "I" and not words.initial[number]
        what = NUMBER if any(map(str.isdigit, word)) else NAME if is_name else word.lower()
        if not said or what != said[-1] or what not in (NAME, NUMBER):
            said.append(what)
        if len(said) == LENGTH:
            break
    return said


class Frequent:
    """Counts keys that come in batches in bounded memory: lossy counting (Manku and Motwani 2002), a key once a text.

    A key that comes once in every batch or more is held; of a key that is held at most one a batch, of the batches
    before it was first held, went uncounted. What is held grows with how many keys come that often, not with the texts.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.keys = np.zeros(0, np.uint64)
        self.counts = np.zeros(0, np.int64)
        self.missed = np.zeros(0, np.int64)
        """How many may have gone uncounted."""
        self.examples = np.zeros(0, np.int64)
        """What the first text of the key was added with."""

    def add(self, keys: Numbers, texts: Numbers, examples: Numbers) -> None:
        """Count a batch of (key, text, example), in the order of the texts."""
        order = np.argsort(keys, kind="stable")
        keys, texts, examples = keys[order], texts[order], examples[order]
        new_key = np.concatenate([[True], keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, bool)
        new_text = new_key | np.concatenate([[True], texts[1:] != texts[:-1]]) if len(keys) else new_key
        starts = np.flatnonzero(new_key)
        counts = np.add.reduceat(new_text, starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
        self._merge(keys[starts], counts, examples[starts])

    def _merge(self, keys: Numbers, counts: Numbers, examples: Numbers) -> None:
        """Add counts of distinct keys in order, and let go of what comes less than once a batch."""
        place = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        held = self.keys[place] == keys if len(self.keys) else np.zeros(len(keys), bool)
        self.counts[place[held]] += counts[held]
        fresh = ~held & (counts > 1)
        merged = np.concatenate([self.keys, keys[fresh]])
        order = np.argsort(merged, kind="stable")
        missed = np.full(int(fresh.sum()), self.batches, np.int64)
        self.batches += 1
        columns = (
            (self.keys, keys[fresh]),
            (self.counts, counts[fresh]),
            (self.missed, missed),
            (self.examples, examples[fresh]),
        )
        self.keys, self.counts, self.missed, self.examples = (np.concatenate(pair)[order] for pair in columns)
        stays = self.counts + self.missed > self.batches
        self.keys, self.counts = self.keys[stays], self.counts[stays]
        self.missed, self.examples = self.missed[stays], self.examples[stays]

    def top(self) -> Iterator[tuple[int, int, int]]:
        """Yield (count, how many may have gone uncounted, example) of the held keys, the most frequent first."""
        for place in np.lexsort((self.keys, -self.counts)).tolist():
            yield int(self.counts[place]), int(self.missed[place]), int(self.examples[place])


def is_shift(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Tell whether two runs are parts of one longer run: one goes on where the other began, up to half their length
    later."""
    return any(
        one[step:] == other[: len(other) - step] or other[step:] == one[: len(one) - step]
        for step in range(LENGTH // 2 + 1)
    )
