"""Lengths and vocabulary: what numpy says of all texts at once."""

import numpy as np
import pytest

from captioning.corpus.lengths import LONGEST, Lengths, vocabulary


def test_mean_and_quantiles_over_batches():
    draw = np.random.default_rng(2)
    counts = draw.integers(1, 200, 10_001)
    lengths = Lengths()
    for part in np.array_split(counts, 7):
        lengths.add(part)
    facts = lengths.facts()
    assert facts.texts == 10_001
    assert facts.mean == pytest.approx(counts.mean())
    wanted = np.quantile(counts, [0.05, 0.25, 0.5, 0.75, 0.95], method="inverted_cdf")
    assert list(facts.quantiles.values()) == wanted.tolist()


def test_empty_texts_are_left_out_and_monsters_are_cut():
    lengths = Lengths()
    assert lengths.facts() is None
    lengths.add(np.array([0, 0, 10**6]))
    assert lengths.facts().texts == 1
    assert lengths.facts().quantiles["50%"] == LONGEST
    assert lengths.facts().mean == 10**6


def test_vocabularies_are_of_as_many_words_each():
    found = vocabulary({"caption": ["A cat a CAT", "a dog sits"], "alt": ["red", None, "green blue"], "top": []}, 100)
    assert {kind: (one.tokens, one.types) for kind, one in found.items()} == {"caption": (3, 2), "alt": (3, 3)}
    assert found["alt"].per_token == 1.0
    assert vocabulary({"alt": [None, "..."]}, 100) == {}
    assert vocabulary({"alt": ["a b c d"]}, 2)["alt"].tokens == 2
