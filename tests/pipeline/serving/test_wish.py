"""What a client may ask for, and in which words it is refused."""

import json
import re

import pytest

from pipeline.sampling.pick import Sampling
from pipeline.serving.wish import Reader, Wish, WishError

TEXT = Reader(None, 20, Sampling(cfg_scale=2.0, top_k=9, top_p=0.5, temperature=0.8))
CLASS = Reader(10, 20)


def test_a_prompt_with_its_settings_is_read():
    asked = {"prompt": " a cat\n", "seed": 2**53 - 1, "cfg_scale": 1, "top_k": 0, "top_p": 1.0, "temperature": 0}
    wish = TEXT.read(json.dumps(asked).encode())
    assert wish == Wish("a cat", Sampling(cfg_scale=1.0, top_k=0, top_p=1.0, temperature=0.0, seed=2**53 - 1))
    del asked["prompt"]
    assert wish.record() == {"text": "a cat", **asked}


def test_what_nobody_named_is_the_defaults_and_a_seed_of_its_own():
    first, second = (TEXT.read(b'{"prompt": "x", "top_k": null}').sampling for _ in range(2))
    assert (first.cfg_scale, first.top_k, first.top_p, first.temperature) == (2.0, 9, 0.5, 0.8)
    assert 0 <= first.seed < 2**31
    assert first.seed != second.seed


def test_a_class_is_read_as_text():
    assert CLASS.read(b'{"class": 7}').text == "7"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is no JSON"),
        (b"{'prompt'", "the body is no JSON"),
        (b"\xff{}", "the body is no UTF-8 (byte 0)"),
        (b"[" * 100_000, "the body is no JSON"),
        (b'{"prompt": "x", "top_p": NaN}', "NaN is no number"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "the body is no JSON that can be read"),
        (b'{"prompt": "x", "prompt": "y"}', "a field stands in it twice"),
        (b'["x"]', "the body is a list, wanted an object"),
        (b'{"prompt": "x", "promt": 1, "n": 2}', "unknown field 'n'; fields are prompt, class, seed"),
        (b"{}", "prompt is missing, wanted a text"),
        (b'{"prompt": 3}', "prompt is a number, wanted a text"),
        (b'{"prompt": " \\n"}', "prompt is empty"),
        (b'{"prompt": "' + b"x" * 21 + b'"}', "prompt has 21 characters, wanted 20 at most"),
        (b'{"prompt": "\\ud800"}', "half a character"),
        (b'{"prompt": "a\\u0000"}', "NUL"),
        (b'{"prompt": "x", "class": 1}', "this model draws prompts"),
        (b'{"prompt": "x", "seed": -1}', "seed is -1, wanted a whole number from 0 to 9007199254740991"),
        (b'{"prompt": "x", "seed": 1.5}', "seed is 1.5"),
        (b'{"prompt": "x", "seed": true}', "seed is true or false"),
        (b'{"prompt": "x", "top_k": "9"}', "top_k is a text, wanted a whole number"),
        (b'{"prompt": "x", "top_p": 1.01}', "top_p is 1.01, wanted a number from 0 to 1"),
        (b'{"prompt": "x", "cfg_scale": 1e999}', "cfg_scale is inf, wanted a number from 0 to 100"),
        (b'{"prompt": "x", "temperature": -0.1}', "temperature is -0.1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(body, says):
    with pytest.raises(WishError, match=re.escape(says)):
        TEXT.read(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"class": 10}', "class is 10, wanted a whole number from 0 to 9"),
        (b'{"class": "7"}', "class is a text"),
        (b"{}", "class is missing, wanted a whole number from 0 to 9"),
        (b'{"prompt": "x"}', "this model draws 10 classes and no prompts"),
    ],
)
def test_classes_are_checked_too(body, says):
    with pytest.raises(WishError, match=re.escape(says)):
        CLASS.read(body)
