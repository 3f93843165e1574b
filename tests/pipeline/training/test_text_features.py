"""Hashed words are the same unit vectors in every process, and the width of T5 features is checked."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline.training.text_features import HashedWords, left_pad, text_features
from tests.support.tiny_t5 import word_t5


def test_hashed_words_are_unit_vectors_of_the_first_eight_words():
    words = HashedWords(64)
    first, second, empty = words.features(
        ["A red-hot Cat\u2019s tail, one_two three four five", "cat\u2019s RED!", "…"]
    )
    assert first.shape == (8, 64)
    assert second.shape == (2, 64)
    assert empty.shape == (0, 64)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(second, first[[3, 1]])
    assert abs(float(first[0] @ first[1])) < 0.5


def test_hashed_words_are_the_same_in_every_process():
    code = (
        "from pipeline.training.text_features import HashedWords;"
        "print(HashedWords(4).features(['Häuser'])[0].tobytes().hex())"
    )
    here = HashedWords(4).features(["Häuser"])[0].tobytes().hex()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


def test_left_pad_by_hand():
    sequences = [np.full((1, 2), 1, np.float32), np.full((3, 2), 2, np.float32), np.zeros((0, 2), np.float32)]
    padded, lengths = left_pad(sequences, 2)
    assert padded[..., 0].tolist() == [[0, 1], [2, 2], [0, 0]]
    assert lengths.tolist() == [1, 2, 0]
    padded, lengths = left_pad(sequences, 5, 5)
    assert padded[..., 0].tolist() == [[0, 0, 0, 0, 1], [0, 0, 2, 2, 2], [0] * 5]
    assert lengths.tolist() == [1, 3, 0]
    assert left_pad(sequences[2:], 5)[0].shape == (1, 1, 2)


def test_unknown_features_list_the_choices():
    with pytest.raises(ValueError, match="choices: t5, hashed_words"):
        text_features("clip", "", 8)
    assert text_features("hashed_words", "", 8).features(["x"])[0].shape == (1, 8)


def test_t5_features_come_through_with_their_width_checked(tmp_path):
    weights = word_t5(tmp_path)
    text = text_features("t5", weights, 16)
    first, second = text.features(["Red cat", "red"])
    assert first.shape == (3, 16)  # two words and </s>
    assert second.shape == (2, 16)
    assert text.label.startswith("T5 ")
    with pytest.raises(ValueError, match=r"train.cond_dim is 2048, but the features of .* are 16 wide"):
        text_features("t5", weights, 2048)
    with pytest.raises(ValueError, match="weights of T5"):
        text_features("t5", str(tmp_path / "nowhere"), 16)
