"""captioning/captioners/openai_config.py: options of an endpoint, and the body of a question."""

import json

import pytest

from captioning.captioner import Ask, CaptionerError
from captioning.captioners.openai_config import config_of, question, seed_of, weights_of
from manifests.extras import MissingExtra

GIVEN = {"base_url": "http://127.0.0.1:8000/v1/", "model": "m"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"base_url": "ftp://a/v1"}, "base_url: wanted http:// or https:// and a host"),
        ({"base_url": "https://me:secret@a/v1"}, "base_url: wanted neither user, password"),
        ({"base_url": "https://a/v1?key=1"}, "base_url: wanted neither user, password"),
        ({"api_key_env": "sk-123"}, "api_key_env: wanted the name of an environment variable in capitals"),
        ({"body": {"messages": []}}, "body: 'messages' is no further field"),
        ({"omit": ["model"]}, "omit: 'model' is needed"),
        ({"batch_size": 4}, "batch_size: an endpoint has none; it takes `concurrency` questions"),
        ({"tries": 0}, "tries: .*greater than or equal to 1"),
        ({"max_new_tokens": 3}, "unknown key 'max_new_tokens'; known keys: answers_as, api_key_env, .*max_tokens"),
    ],
)
def test_wrong_options_say_what_is_wanted(more: dict[str, object], says: str) -> None:
    with pytest.raises(CaptionerError, match=says):
        config_of({**GIVEN, **more})


@pytest.mark.parametrize("place", ["https://me:hunter2@a/v1", "https://a/v1?api_key=hunter2"])
def test_a_password_in_a_wrong_place_is_not_repeated(place: str) -> None:
    with pytest.raises(CaptionerError) as refused:
        config_of({**GIVEN, "base_url": place})
    assert "hunter2" not in str(refused.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(CaptionerError, match=r"base_url: wanted where the server is.*; model: wanted the model's name"):
        config_of({})


def test_a_question_is_the_picture_and_the_prompt() -> None:
    config = config_of({**GIVEN, "body": {"max_completion_tokens": 9}, "omit": ["max_tokens", "temperature"]})
    told = json.loads(question(config, Ask(b"u" * 16, b"\xff\xd8\xff", 'say "a" {alt}')))
    assert (told["model"], told["max_completion_tokens"], told["stream"]) == ("m", 9, False)
    assert not {"max_tokens", "temperature", "seed"} & set(told)
    picture, text = told["messages"][0]["content"]
    assert picture == {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}}
    assert text == {"type": "text", "text": 'say "a" {alt}'}
    png = json.loads(question(config, Ask(b"u" * 16, b"\x89PNG", "")))
    assert png["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;")


def test_seeds_are_of_the_picture_and_the_question() -> None:
    seeds = {seed_of(Ask(uid * 16, b"", "", seed)) for uid in (b"a", b"b") for seed in (1, 2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_without_aiohttp_the_extra_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_of(config_of(GIVEN)) == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'aiohttp' is not installed\..*tessera-t2i\[fetch\]"):
        weights_of(config_of(GIVEN))
