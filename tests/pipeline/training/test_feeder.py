"""Batches become parts: stored features are used, computed ones stay where they are, padding is on the left."""

import numpy as np
import pytest
import torch

from pipeline.loading.batch import Batch
from pipeline.training.conditions import ClassCondition, TextCondition
from pipeline.training.feeder import Feeder, gathered, placed
from pipeline.training.text_features import HashedWords, T5Text
from tests.support.tiny_t5 import word_t5

CPU = torch.device("cpu")
WORDS = ["a red cat", "dog", "", "the moon and the sun"]


def batch_of(captions, features=None):
    count = len(captions)
    codes = np.arange(count * 4).reshape(count, 4)
    return Batch(3, np.zeros(count, int), [f"{n:032x}" for n in range(count)], codes, list(captions), ["alt"] * count,
                 features or [None] * count)  # fmt: skip


def test_parts_have_their_rows_and_say_where_a_caption_has_no_token():
    feeder = Feeder(TextCondition(HashedWords(8), 8, 8), CPU, micro_batch=3)
    ((first, second),) = feeder.feed(iter([batch_of(WORDS)]))
    assert first.codes_BN.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (first.condition[1].tolist(), first.dense) == ([3, 1, 0], True)
    assert (second.condition[1].tolist(), second.dense) == ([5], False)
    assert second.condition[0].shape == (1, 5, 8)


def test_classes_are_labels():
    ((part,),) = Feeder(ClassCondition(10), CPU).feed(iter([batch_of(["3", "7"])]))
    assert (part.condition.tolist(), part.dense) == ([3, 7], False)


@pytest.mark.parametrize("multiple", [1, 4])
def test_what_is_gathered_on_the_device_is_what_is_padded_on_the_host(tmp_path, multiple):
    """Two captions have stored features, the others' are computed: as the GPU's way does it, on this CPU."""
    text = T5Text(str(word_t5(tmp_path / "t5")), 16, "cpu")
    condition = TextCondition(text, 6, 16, multiple)
    stored = [None, np.full((2, 16), 3, np.float32), None, np.full((9, 16), 5, np.float32)]
    wanted_BTC, wanted_B = condition.of(WORDS, stored)
    found_BTC, lengths = Feeder(condition, CPU)._on_device(WORDS, stored)
    assert lengths == wanted_B.tolist()
    torch.testing.assert_close(found_BTC, wanted_BTC, atol=1e-6, rtol=0)


def test_places_in_the_pool_by_hand():
    assert placed([None, 2, None, 3], [4, 1]) == [(1, 4), (6, 2), (5, 1), (8, 3)]
    pool = torch.arange(11.0)[:, None]
    rows, lengths = gathered(pool, [(1, 4), (6, 2)], TextCondition(HashedWords(1), 3, 1, 2))
    assert rows[..., 0].tolist() == [[1, 2, 3], [0, 6, 7]]
    assert lengths == [3, 2]
