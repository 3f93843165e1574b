"""captioning/captioners/openai_answers.py: what an answer's status and body mean."""

import json
from typing import Any

import pytest

from captioning.captioner import Answer, CaptionerError
from captioning.captioners.openai_answers import Fault, read_answer
from captioning.captioners.openai_config import config_of
from tests.support.chat_server import reply

UID = b"u" * 16


def read(told: Any, status: int = 200, headers: dict[str, str] | None = None, **more: object) -> Answer | Fault:
    config = config_of({"base_url": "http://a/v1", "model": "m", **more})
    body = told if told is None or isinstance(told, bytes) else json.dumps(told).encode()
    return read_answer(config, UID, status, headers or {}, body)


def test_a_caption_with_its_tokens() -> None:
    assert read(reply(" a dog\n", "m")) == Answer(UID, "a dog", 2, 11)
    assert read(reply("a dog", "m", "length")) == Answer(UID, "a dog", 2, 11, at_limit=True)
    assert read(reply("", "m")) == Answer(UID, "", 0, 11)


def test_text_may_come_in_parts_and_tokens_not_at_all() -> None:
    told = reply("", "m")
    told["choices"][0]["message"]["content"] = [{"type": "text", "text": "a "}, 3, {"type": "text", "text": "dog"}]
    told["usage"] = {"prompt_tokens": -1, "completion_tokens": 10**30}
    assert read(told) == Answer(UID, "a dog", 2**31 - 1, 0)
    del told["usage"]
    assert read(told) == Answer(UID, "a dog")


def test_half_a_character_becomes_a_question_mark() -> None:
    assert read(b'{"choices": [{"message": {"content": "a \\ud800"}}]}') == Answer(UID, "a ?")


@pytest.mark.parametrize("named", ["m", "m-2026-01-01", None])
def test_models_that_are_the_one(named: str | None) -> None:
    assert isinstance(read(reply("a", named)), Answer)


@pytest.mark.parametrize("named", ["m2", "other", "M", ""])
def test_models_that_are_another(named: str) -> None:
    with pytest.raises(CaptionerError, match="model: 'm' was asked for"):
        read({**reply("a"), "model": named})
    assert isinstance(read({**reply("a"), "model": named or "x"}, answers_as=named or "x"), Answer)


@pytest.mark.parametrize(
    "told",
    [
        None,
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[1" + b"0" * 5000 + b"]",
        [],
        "text",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": ["a"]},
        {"choices": [{}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": 3}}]},
    ],
)
def test_what_is_no_answer_is_asked_again(told: Any) -> None:
    fault = read(told)
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.passing) == ("endpoint_bad_answer", True)


def test_refusals_of_one_picture() -> None:
    for told in (reply(None, "m", refusal="no"), reply("half a", "m", "content_filter")):
        fault = read(told)
        assert isinstance(fault, Fault)
        assert (fault.reason, fault.passing, fault.alive) == ("endpoint_refused", False, True)
    fault = read({"error": {"code": "content_policy_violation"}}, 400)
    assert isinstance(fault, Fault)
    assert fault.alive


def test_gateways_put_errors_into_a_200() -> None:
    fault = read({"error": {"message": "upstream\nis away", "code": 502}})
    assert fault == Fault("endpoint_busy", "upstream is away")


def test_what_the_server_asks_to_wait() -> None:
    fault = read({}, 503, {"Retry-After": "7"})
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.wait_s) == ("endpoint_busy", 7)
    dated = {"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    fault = read({}, 429, dated)
    assert isinstance(fault, Fault)
    assert fault.wait_s == 30


@pytest.mark.parametrize(
    ("status", "told", "says"),
    [
        (401, {"error": {"message": "sk-secret"}}, r"answers 401 to no key \(caption.NAME.api_key_env\)"),
        (404, {"detail": "Not Found"}, r"404 \(Not Found\): wanted a base_url of chat completions"),
        (400, {"error": {"code": "model_not_found", "message": "no m"}}, r"400 \(no m\): wanted a base_url"),
        (302, b"<html>", "answers 302 and sends on elsewhere"),
        (402, {"error": "no money"}, r"402 \(no money\): the account pays for no more"),
    ],
)
def test_what_would_come_of_every_question(status: int, told: Any, says: str) -> None:
    with pytest.raises(CaptionerError, match=says) as raised:
        read(told, status)
    assert "secret" not in str(raised.value)
