"""Captions and class numbers become tensors: what is stored is used, the rest is computed, all padded on the left."""

import numpy as np
import pytest
import torch

from pipeline.recipes.train import TrainConfig
from pipeline.training.conditions import ClassCondition, TextCondition, conditioner
from pipeline.training.text_features import HashedWords
from tokenize_shards.samples import LoaderError


class Lengths:
    """Text features of width 2: a vector (n, n) per word, n the word's length. It remembers what it was asked."""

    label = "lengths"

    def __init__(self):
        self.asked = []

    def features(self, captions):
        self.asked += captions
        return [
            np.array([[len(word)] * 2 for word in caption.split()], np.float32).reshape(-1, 2) for caption in captions
        ]


def test_captions_are_padded_on_the_left():
    features, lengths = TextCondition(Lengths(), cond_len=3, cond_dim=2).of(["a bb", "ccc", ""])
    assert features[..., 0].tolist() == [[1, 2], [0, 3], [0, 0]]  # as wide as the longest caption here
    assert (features.shape, features.dtype, features.device.type) == ((3, 2, 2), torch.float32, "cpu")
    assert lengths.tolist() == [2, 1, 0]


def test_the_last_tokens_of_a_long_caption_are_cut_and_widths_are_multiples():
    long = TextCondition(Lengths(), cond_len=2, cond_dim=2).of(["a bb ccc dddd"])
    assert long[0][..., 0].tolist() == [[1, 2]]
    wide = TextCondition(Lengths(), cond_len=4, cond_dim=2, multiple=4).of(["a bb"])
    assert (wide[0][..., 0].tolist(), wide[1].tolist()) == ([[0, 0, 1, 2]], [2])


def test_stored_features_are_used_and_only_the_others_are_computed():
    text = Lengths()
    stored = [None, np.array([[7.0, 8.0]], np.float32), None]
    features, lengths = TextCondition(text, cond_len=3, cond_dim=2).of(["a", "never read", "bb bb"], stored)
    assert text.asked == ["a", "bb bb"]
    assert features[:, -1].tolist() == [[1, 1], [7, 8], [2, 2]]
    assert lengths.tolist() == [1, 1, 2]


def test_stored_features_of_another_width_are_refused():
    condition = TextCondition(Lengths(), cond_len=3, cond_dim=2)
    with pytest.raises(LoaderError, match=r"stored text features are 3 wide, train\.cond_dim is 2"):
        condition.of(["a", "b"], [None, np.ones((1, 3), np.float32)])


def test_a_stored_one_per_caption_is_wanted():
    with pytest.raises(ValueError, match="zip"):
        TextCondition(Lengths(), cond_len=3, cond_dim=2).of(["a", "b"], [None])


def test_classes_are_their_numbers():
    condition = ClassCondition(1000)
    labels = condition.of(["3", "0", "999"])
    assert (labels.tolist(), labels.dtype) == ([3, 0, 999], torch.int64)
    assert (condition.label, condition.says) == ("class labels", "1,000 classes")


def test_the_recipe_says_which():
    assert conditioner(TrainConfig(condition="class", classes=5), "cpu") == ClassCondition(5)
    text = conditioner(TrainConfig(text="hashed_words", cond_len=7, cond_dim=16, compile=True), "cpu")
    assert isinstance(text.text, HashedWords)
    assert (text.text.dim, text.cond_len, text.cond_dim, text.multiple) == (16, 7, 16, 16)  # compiled: few shapes
    assert (text.label, text.says) == ("hashed words", "text hashed words")
