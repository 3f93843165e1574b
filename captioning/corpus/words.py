"""Cut many texts into words at once: what repeats, skeletons and word lists are looked up in.

A word is a run of letters and digits; an apostrophe or a hyphen ends one. A character of a script that is written
without spaces (Chinese, Japanese kana, Thai, Lao, Burmese, Khmer) is a word by itself.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Numbers = np.ndarray[Any, np.dtype[Any]]

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)
_ASCII = [chr(code) for code in range(128)]
IS_WORD = np.array([character.isalnum() for character in _ASCII] + [True] * 128)
IS_END = np.array([character in ".!?\n" for character in _ASCII] + [False] * 128)
LOWER = np.array([ord(character.lower()) for character in _ASCII] + list(range(128, 256)), np.uint8)


class _Replaced(dict[int, str]):
    """Characters beyond ASCII -> what stands for them before words are cut; filled as they come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 128:
            made = character
        elif character in "\u3002\uff0e":
            made = ". "
        elif unicodedata.category(character)[0] in "PSZC":
            made = " "
        else:
            made = f" {character} " if _UNSPACED.match(character) else character
        self[code] = made
        return made


_REPLACED = _Replaced()


def plain(text: str) -> str:
    """Return a text in Unicode's form NFKC, punctuation and symbols beyond ASCII as spaces, and spaces around each
    character of a script without spaces."""
    return unicodedata.normalize("NFKC", text).translate(_REPLACED)


@dataclass(frozen=True)
class Words:
    """The words of many texts, one after another.

    `first`: (texts + 1), where the words of each text begin, and the end. `index`: of each word its number in `unique`,
    as written. `initial`: whether it begins its text or follows the end of a sentence. `letters`: the UTF-8 of all
    words without anything between, `ends`: (words + 1), where they begin in it, and the end.
    """

    first: Numbers
    index: Numbers
    unique: list[str]
    initial: Numbers
    letters: Numbers
    ends: Numbers

    @classmethod
    def of(cls, texts: pa.Array) -> "Words":
        """Cut texts (string, null counts as empty) into words. At most 2 GB of text at once."""
        data, bounds = _bytes_of(texts)
        is_word = IS_WORD[data]
        around = np.concatenate([[False], is_word, [False]])
        begins = is_word & ~around[:-2]
        begins[bounds[:-1][bounds[:-1] < bounds[1:]]] = True  # a text does not go on with the last one's word
        starts = np.flatnonzero(begins & is_word)
        closes = is_word & ~around[2:]
        closes[bounds[1:][bounds[:-1] < bounds[1:]] - 1] = True
        stops = np.flatnonzero(closes & is_word) + 1
        ends = np.concatenate([[0], np.cumsum(stops - starts)])
        letters = data[is_word]
        first = np.searchsorted(starts, bounds)
        words = pa.StringArray.from_buffers(
            len(starts), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(letters))
        )
        coded = words.dictionary_encode()
        marks = np.searchsorted(np.flatnonzero(IS_END[data]), starts)
        initial = np.diff(marks, prepend=-1) > 0
        initial[first[:-1][first[:-1] < len(starts)]] = True
        return cls(first, coded.indices.to_numpy(), coded.dictionary.to_pylist(), initial, letters, ends)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def counts(self) -> Numbers:
        """Return how many words each text has."""
        return np.diff(self.first)

    @cached_property
    def lower(self) -> list[str]:
        """Return `unique` in lower case."""
        return [word.lower() for word in self.unique]

    @cached_property
    def hashes(self) -> Numbers:
        """Return 8 bytes of BLAKE2b of each unique word in lower case, uint64."""
        digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in self.lower)
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    def text_keys(self) -> pa.Array:
        """Return 8 bytes of BLAKE2b over each text's letters and digits in lower case, all else left out: the key that
        equal captions share, uint64; null where a text has none."""
        lower = LOWER[self.letters]
        ascii_only = not (lower >= 128).any()
        places = self.ends[self.first]
        raw, found = lower.tobytes(), np.zeros(len(self), np.uint64)
        for row, (start, end) in enumerate(zip(places[:-1].tolist(), places[1:].tolist(), strict=True)):
            text = raw[start:end]
            if not ascii_only and not text.isascii():
                text = text.decode().lower().encode()
            found[row] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return pa.array(found, mask=places[:-1] == places[1:])

    def run_keys(self, length: int, *, closing: bool = False) -> Numbers:
        """Return a key of each text's first words, `length` of them, or its last ones: uint64, 0 where it has none."""
        counts, keys = self.counts, np.zeros(len(self), np.uint64)
        hashes = self.hashes[self.index] if len(self.index) else np.zeros(0, np.uint64)
        for number, factor in enumerate(FACTORS[:length]):
            has = counts > number
            places = (self.first[1:] - 1 - number if closing else self.first[:-1] + number)[has]
            keys[has] += hashes[places] * factor
        return keys


FACTORS = np.array(
    [int.from_bytes(hashlib.blake2b(bytes([number]), digest_size=8).digest(), "big") | 1 for number in range(16)],
    np.uint64,
)
"""Odd numbers that hashes of words are multiplied by, by place, before they are added: the key of a run of words."""


def caption_keys(texts: pa.Array) -> pa.Array:
    """Return the key that equal captions share (see `Words.text_keys`) of each text: uint64, null where there is no
    letter and no digit."""
    return Words.of(texts).text_keys()


def _bytes_of(texts: pa.Array) -> tuple[Numbers, Numbers]:
    """Return (the UTF-8 of all texts, uint8; where each begins, and the end), those beyond ASCII in plain form."""
    texts = texts.fill_null("").cast(pa.large_string())
    data, bounds = _buffers(texts)
    beyond = np.searchsorted(np.flatnonzero(data >= 128), bounds)
    rows = np.flatnonzero(np.diff(beyond))
    if len(rows):
        made = pa.array([plain(text) for text in texts.take(pa.array(rows)).to_pylist()], pa.large_string())
        where = np.zeros(len(texts), bool)
        where[rows] = True
        data, bounds = _buffers(pc.replace_with_mask(texts, pa.array(where), made))
    return data, bounds


def _buffers(texts: pa.Array) -> tuple[Numbers, Numbers]:
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    letters = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return letters[bounds[0] : bounds[-1]], bounds - bounds[0]
