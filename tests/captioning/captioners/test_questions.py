"""Words that are drawn by a seed, and questions on their way to a model."""

from types import SimpleNamespace

import pytest
import torch

from captioning.captioner import Ask, CaptionerError
from captioning.captioners.prepare import Here
from captioning.captioners.questions import Questions, drawn
from captioning.captioners.transformers_files import TransformersConfig

CONFIG = TransformersConfig(temperature=1.0, top_p=0.9)


def test_tokens_are_drawn_by_their_shares_from_the_likeliest():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    counts = [0] * 4
    for number in range(4000):
        counts[drawn(logits, CONFIG, number.to_bytes(16, "big"), 1, 0)] += 1
    assert counts[3] == 0  # behind the likeliest nine tenths
    assert counts[0] / 4000 == pytest.approx(0.5 / 0.95, abs=0.03)
    assert counts[1] / 4000 == pytest.approx(0.3 / 0.95, abs=0.03)


def test_a_token_depends_on_uid_seed_and_place_alone():
    logits = torch.zeros(1000)
    one = [drawn(logits, CONFIG, b"a" * 16, 1, place) for place in range(20)]
    assert one == [drawn(logits, CONFIG, b"a" * 16, 1, place) for place in range(20)]
    assert one != [drawn(logits, CONFIG, b"a" * 16, 2, place) for place in range(20)]
    assert one != [drawn(logits, CONFIG, b"b" * 16, 1, place) for place in range(20)]
    assert drawn(torch.tensor([0.0, 1e9]), CONFIG, b"a" * 16, 3, 0) == 1


def test_three_failures_before_any_success_end_the_run_and_one_among_others_does_not():
    owner = SimpleNamespace(ahead=Here(), name="x", model="m", config=CONFIG, folder="nowhere")
    asks = [Ask(bytes([number]) * 16, b"", "?") for number in range(3)]
    run = Questions(owner, iter(asks))
    run.fail(asks[0], "no")
    run.fail(asks[1], "no")
    with pytest.raises(CaptionerError, match="x: m failed on each of the first 3 pictures: no"):
        run.fail(asks[2], "no")
    other = Questions(owner, iter(asks), worked=True)
    for ask in asks:
        other.fail(ask, "no")
    assert [answer.reason for answer in other.failed()] == ["captioner_failed"] * 3
    assert list(other.failed()) == []


def test_none_of_the_questions_is_lost_on_the_way():
    drawn_asks = []
    owner = SimpleNamespace(ahead=Here(), name="x", model="m", config=CONFIG, folder="nowhere")
    asks = (drawn_asks.append(n) or Ask(bytes([n]) * 16, b"no picture", "?") for n in range(10))
    run = Questions(owner, asks)
    assert list(run) == []
    assert sorted(answer.uid[0] for answer in run.failed()) == drawn_asks == list(range(10))
