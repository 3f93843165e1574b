"""Stored text features of another encoder or width are refused with the remedy, before anything is moved."""

import numpy as np
import pytest

from pipeline.recipes.train import TrainConfig
from pipeline.training.stored_text import check_stored_text
from tests.support.code_shards import tokenizer
from tests.support.tiny_t5 import letter_t5
from tokenize_shards.samples import CodeSample, LoaderError
from tokenize_shards.text import t5_weights


def sample(width=32, by="a" * 64):
    features = np.zeros((3, width), np.float32)
    return CodeSample("u", np.zeros((1, 64), np.uint16), (), tokenizer(), 64, features=features, features_by=by)


def test_features_of_the_trainers_encoder_are_taken(tmp_path):
    weights = str(letter_t5(tmp_path))
    config = TrainConfig(text_weights=weights, cond_dim=32)
    assert check_stored_text(config, sample(by=t5_weights(weights).sha256)) is None
    assert "do not say which encoder" in check_stored_text(config, sample(by=""))
    with pytest.raises(LoaderError, match=r"made by T5 aaaaaaaaaaaa…, train\.text_weights .* is [0-9a-f]{12}…: name"):
        check_stored_text(config, sample())


def test_others_are_refused():
    with pytest.raises(LoaderError, match=r"are 16 wide, train\.cond_dim is 32: set train\.cond_dim = 16 .*'online'"):
        check_stored_text(TrainConfig(cond_dim=32), sample(16))
    with pytest.raises(LoaderError, match=r"features of T5 aaaaaaaaaaaa…, train\.text is 'hashed_words'"):
        check_stored_text(TrainConfig(text="hashed_words", cond_dim=32), sample())


def test_samples_without_features_and_classes_have_nothing_to_compare():
    config = TrainConfig(text="hashed_words", cond_dim=32)
    bare = CodeSample("u", np.zeros((1, 64), np.uint16), (), tokenizer(), 64)
    assert check_stored_text(config, bare) is None
    assert check_stored_text(config.model_copy(update={"condition": "class"}), sample(7)) is None
