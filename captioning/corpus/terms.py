"""Find the words for people in texts: lists of terms by axis and group, which lie in captioning/corpus/lists/."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from captioning.corpus.words import Words

Numbers = np.ndarray[Any, np.dtype[Any]]
AXES = ("gender", "age", "skin_tone", "ethnicity", "nationality", "occupation")
"""The lists, a file each."""
NONE = "-"
"""Group of what looks like a term and is none: its words count for no group of the file."""


@dataclass(frozen=True)
class Term:
    """A term: its axis and group, and its words, in small letters unless it is matched as written alone."""

    axis: str
    group: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return its words with blanks between."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Found:
    """Which texts hold which terms: (n,) each, a pair once, by text and term. `kinds`: how many terms there are."""

    texts: Numbers
    terms: Numbers
    kinds: int

    @property
    def codes(self) -> Numbers:
        """Return a number for each pair, in order."""
        return self.texts.astype(np.int64) * self.kinds + self.terms

    def mapped(self, kind_of: Numbers, kinds: int) -> "Found":
        """Return the pairs of text and another kind that each term is of."""
        codes = np.unique(self.texts.astype(np.int64) * kinds + kind_of[self.terms])
        return Found(codes // kinds, codes % kinds, kinds)

    def counts(self) -> Numbers:
        """Return how many texts hold each term."""
        return np.bincount(self.terms, minlength=self.kinds)


class Terms:
    """Lists of terms, ready to be looked up."""

    def __init__(self, listed: list[Term]) -> None:
        """Take terms; those of the group NONE cover words and are not counted."""
        self.listed = listed
        self.terms = [term for term in listed if term.group != NONE]
        self.groups = list(dict.fromkeys((term.axis, term.group) for term in self.terms))
        self.group_of = np.array([self.groups.index((term.axis, term.group)) for term in self.terms], np.int64)
        self._word = {word: code for code, word in enumerate(sorted({w for t in listed for w in t.words}), 1)}

    @cached_property
    def _tables(self) -> dict[str, list[tuple[int, Numbers, Numbers]]]:
        """Return axis -> (length, keys in order, number of the term or -1), the longest terms first."""
        number = {term: place for place, term in enumerate(self.terms)}
        made: dict[str, list[tuple[int, Numbers, Numbers]]] = {}
        for axis in dict.fromkeys(term.axis for term in self.listed):
            own = [term for term in self.listed if term.axis == axis]
            for length in sorted({len(term.words) for term in own}, reverse=True):
                pairs = sorted(
                    (self._key(term.words), number.get(term, -1)) for term in own if len(term.words) == length
                )
                keys, places = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
                made.setdefault(axis, []).append((length, keys, places))
        return made

    def _key(self, words: tuple[str, ...]) -> int:
        key = 0
        for word in words:
            key = key * self._base + self._word[word]
        return key

    @property
    def _base(self) -> int:
        return len(self._word) + 1

    def find(self, words: Words) -> Found:
        """Return which texts hold which terms. Of terms of one axis over the same words the longest counts."""
        known = [self._word.get(word) or self._word.get(word.lower(), 0) for word in words.unique]
        codes = np.array([*known, 0], np.int64)[words.index] if len(words.index) else np.zeros(0, np.int64)
        places = np.flatnonzero(codes)
        text_of = np.searchsorted(words.first, places, side="right") - 1
        found = [np.zeros(0, np.int64)]
        room = words.first[text_of + 1] - places  # words from here to the end of the text
        codes = np.concatenate([codes, np.zeros(8, np.int64)])
        for tables in self._tables.values():
            covered = np.zeros(len(codes), bool)
            for length, keys, numbers in tables:
                hit, which = self._hits(codes, places[(room >= length) & ~covered[places]], length, keys)
                hit, which = _free(covered, hit, which, length)
                for step in range(length):
                    covered[hit + step] = True
                texts = np.searchsorted(words.first, hit, side="right") - 1
                counted = numbers[which] >= 0
                found.append(texts[counted] * len(self.terms) + numbers[which][counted])
        pairs = np.unique(np.concatenate(found))
        kinds = max(len(self.terms), 1)
        return Found(pairs // kinds, pairs % kinds, len(self.terms))

    def _hits(self, codes: Numbers, places: Numbers, length: int, keys: Numbers) -> tuple[Numbers, Numbers]:
        """Return (place, number of the key) where the words from a place on are one of these keys."""
        made = np.zeros(len(places), np.int64)
        for step in range(length):
            made = made * self._base + codes[places + step]
        which = np.minimum(np.searchsorted(keys, made), len(keys) - 1)
        hit = keys[which] == made
        return places[hit], which[hit]


def _free(covered: Numbers, hit: Numbers, which: Numbers, length: int) -> tuple[Numbers, Numbers]:
    """Return those hits none of whose words belongs to a longer term."""
    free = ~np.any([covered[hit + step] for step in range(length)], axis=0)
    return hit[free], which[free]


def read_terms(axis: str, text: str) -> Iterator[Term]:
    """Yield the terms of a list: lines of GROUP, tab, terms with commas; # begins a line that says where it is from.
    Raises ValueError for a line of another form, or a term that stands there twice."""
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        group, tab, listed = line.partition("\t")
        for one in listed.split(","):
            cut = Words.of(pa.array([one.strip()]))
            words = tuple(cut.unique[place] for place in cut.index)
            if not tab or not words or words in seen:
                raise ValueError(f"{axis}, line {number}: {one.strip()!r} is no term, or stands there twice")
            seen.add(words)
            yield Term(axis, group.strip(), words)


def list_texts() -> dict[str, str]:
    """Return axis -> the text of its list."""
    folder = files("captioning.corpus").joinpath("lists")
    return {axis: folder.joinpath(f"{axis}.tsv").read_text(encoding="utf-8") for axis in AXES}


@cache
def people_terms() -> Terms:
    """Return the terms of all lists."""
    return Terms([term for axis, text in list_texts().items() for term in read_terms(axis, text)])
