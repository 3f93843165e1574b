"""Turn captions into text features for the GPT: flan-t5's, or one fixed vector per word."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokenize_shards.samples import Features

MAX_WORDS = 8
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
"""A run of letters and digits of any script, with inner apostrophes."""


class TextFeatures(Protocol):
    """Anything that turns captions into sequences of vectors."""

    label: str  # as outputs print it: stand-in weights always say so

    def features(self, captions: list[str]) -> list[Features]:
        """Return one (n, C) array per caption; n is 0 for a caption without content."""
        ...


class HashedWords:
    """The first eight words of a caption, lowercased, each a unit vector drawn from a hash of the word.

    It needs no model and knows no meaning: "cat" and "kitten" are as far apart as any two words. For demos.
    """

    label = "hashed words"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._vector = lru_cache(maxsize=65536)(self._draw)

    def _draw(self, word: str) -> Features:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:16], "big")
        vector = np.random.default_rng(seed).standard_normal(self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def features(self, captions: list[str]) -> list[Features]:
        """Return (n <= 8, dim) float32 per caption."""
        words_of = (WORD.findall(caption.lower())[:MAX_WORDS] for caption in captions)
        return [
            np.stack([self._vector(word) for word in words]) if words else np.zeros((0, self.dim), np.float32)
            for words in words_of
        ]


class T5Text:
    """A T5 encoder; its label names the weights and the head of their sha256."""

    def __init__(self, weights: str, dim: int, device: str) -> None:
        from tokenize_shards.text import T5Features  # torch and transformers

        self._encoder = T5Features(weights, "fp32" if device == "cpu" else "bf16", device=device)
        self.label = f"{self._encoder.weights.label} {self._encoder.weights.sha256[:12]}"
        if self._encoder.dim != dim:
            raise ValueError(f"train.cond_dim is {dim}, but the features of {weights} are {self._encoder.dim} wide")

    def features(self, captions: list[str]) -> list[Features]:
        """Return (n <= 120, dim) float32 per caption."""
        return self._encoder.features(captions)

    def on_device(self, captions: Sequence[str]) -> tuple[Any, list[int]]:
        """Return the vectors of all captions one behind the other, (X, dim), on the device, and each one's number."""
        return self._encoder.on_device(captions)


def text_features(kind: str, weights: str, dim: int, device: str = "cpu") -> TextFeatures:
    """Return the features named by `train.text`.

    kind: "t5" (`weights` is a folder or a name) or "hashed_words". Raises ValueError for another kind or width,
    WeightsError for missing weights.
    """
    if kind == "hashed_words":
        return HashedWords(dim)
    if kind == "t5":
        return T5Text(weights, dim, device)
    raise ValueError(f"text features {kind!r} are unknown; choices: t5, hashed_words")


def width_of(lengths: Sequence[int], cond_len: int, multiple: int = 1) -> int:
    """Return how many positions hold sequences of these lengths: the longest, at least 1, at most `cond_len`, rounded
    up to a multiple, so that few shapes come."""
    longest = max(1, *lengths, 1)
    return min(cond_len, -(-longest // multiple) * multiple)


def left_pad(features: Sequence[Features], cond_len: int, multiple: int = 1) -> tuple[Features, npt.NDArray[np.int64]]:
    """Return (B, T, C) with each sequence in the last slots, and the lengths (B,); what exceeds `cond_len` is cut at
    the end.

    T is `width_of` the lengths: positions that all rows pad change no logit.
    """
    kept = [sequence[:cond_len] for sequence in features]
    lengths_B = np.array([len(sequence) for sequence in kept], dtype=np.int64)
    width = width_of(lengths_B.tolist(), cond_len, multiple)
    padded_BTC = np.zeros((len(kept), width, features[0].shape[1]), np.float32)
    for row, sequence in zip(padded_BTC, kept, strict=True):
        row[width - len(sequence) :] = sequence
    return padded_BTC, lengths_B
