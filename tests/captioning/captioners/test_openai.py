"""captioning/captioners/openai.py against a server on 127.0.0.1 that fails as it is told to."""

import time
from collections.abc import Iterator

import pytest

from captioning.base import build_captioner, captioner_promise, captioner_settings, captioner_weights
from captioning.captioner import Answer, Ask, CaptionerError
from captioning.captioners import openai
from tests.support.chat_server import MODEL, ChatServer

JPEG = b"\xff\xd8\xff\xe0"
KEY = "sk-nobody-may-see-this"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


def options(server: ChatServer, **more: object) -> dict[str, object]:
    quick = {"backoff_s": 0.01, "try_s": 0.3, "deadline_s": 5.0, "tries": 4}
    return {"use": "openai", "base_url": server.base_url, "model": MODEL, **quick, **more}


def asks(*prompts: str, seed: int = 0) -> Iterator[Ask]:
    return (Ask(number.to_bytes(16, "big"), JPEG + bytes([number]), text, seed) for number, text in enumerate(prompts))


def answers(server: ChatServer, *prompts: str, **more: object) -> list[Answer]:
    captioner = build_captioner("far", options(server, **more))
    found = {answer.uid: answer for answer in captioner.answers(asks(*prompts))}
    return [found[number.to_bytes(16, "big")] for number in range(len(prompts))]


def test_every_question_is_answered_with_its_own_text_and_tokens(server: ChatServer) -> None:
    found = answers(server, *(f"question {number}" for number in range(40)), concurrency=8)
    assert len({answer.text for answer in found}) == 40
    assert all(answer.text.endswith(f"question {number}") for number, answer in enumerate(found))
    assert {(answer.prompt_tokens, answer.tokens > 5, answer.reason) for answer in found} == {(11, True, None)}
    (asked,) = {(question["model"], question["temperature"], question["max_tokens"]) for question in server.questions}
    assert asked == (MODEL, 0.0, 512)
    assert "seed" not in server.questions[0]


def test_questions_are_drawn_as_there_is_room(server: ChatServer) -> None:
    server.delay_s, drawn = 0.05, []

    def counted() -> Iterator[Ask]:
        for ask in asks(*map(str, range(12))):
            drawn.append(ask.uid)
            yield ask

    stream = build_captioner("far", options(server, concurrency=3)).answers(counted())
    next(stream)
    assert len(drawn) == 3
    assert len(list(stream)) == 11
    assert server.most == 3


@pytest.mark.parametrize("fault", ["429", "500", "half", "cut", "empty", "dropped", "large", "slow"])
def test_a_fault_that_passes_is_asked_again(server: ChatServer, fault: str) -> None:
    found = answers(server, f"fault:{fault}x2", "well")
    assert [answer.reason for answer in found] == [None, None]
    assert sorted(server.asked.values()) == [1, 3]


@pytest.mark.parametrize(
    ("fault", "reason", "times"),
    [
        ("429", "endpoint_busy", 4),
        ("429hour", "endpoint_busy", 1),
        ("500", "endpoint_busy", 4),
        ("half", "endpoint_bad_answer", 4),
        ("cut", "endpoint_bad_answer", 4),
        ("empty", "endpoint_bad_answer", 4),
        ("large", "endpoint_bad_answer", 4),
        ("dropped", "endpoint_connection", 4),
        ("slow", "endpoint_timeout", 4),
        ("400", "endpoint_refused", 1),
        ("policy", "endpoint_refused", 1),
        ("filtered", "endpoint_refused", 1),
    ],
)
def test_a_fault_that_lasts_is_a_reason(server: ChatServer, fault: str, reason: str, times: int) -> None:
    bad, good = answers(server, f"fault:{fault}", "well")
    assert (bad.reason, bad.text, good.reason) == (reason, "", None)
    assert sorted(server.asked.values()) == sorted([times, 1])


def test_the_deadline_bounds_all_tries_together(server: ChatServer) -> None:
    began = time.monotonic()
    (bad,) = answers(server, "fault:slow", deadline_s=0.5, tries=100)
    assert (bad.reason, time.monotonic() - began < 3) == ("endpoint_timeout", True)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("model", "caption.far.model: 'stub-7b' was asked for and 'other-1b' answers"),
        ("redirect", "answers 307 and sends on elsewhere; nothing is sent after it"),
        ("403", "answers 403 to no key"),
        ("quota", r"answers 429 \(pay\): the account pays for no more"),
    ],
)
def test_what_would_come_of_every_question_ends_all(server: ChatServer, fault: str, says: str) -> None:
    with pytest.raises(CaptionerError, match=says):
        answers(server, "well", f"fault:{fault}")
    assert max(server.asked.values()) == 1


def test_what_is_under_way_is_answered_before_the_end(server: ChatServer) -> None:
    server.delay_s = 0.1
    stream = build_captioner("far", options(server, concurrency=4)).answers(asks("fault:model", *"abc", *"unasked"))
    found: list[str] = []
    with pytest.raises(CaptionerError, match="'other-1b' answers"):
        found.extend(answer.text for answer in stream)
    assert (len(server.asked), len(found)) == (4, 3)


def test_a_model_that_the_server_lacks_ends_all(server: ChatServer) -> None:
    with pytest.raises(CaptionerError, match=r"404 \(no such model\): wanted .* models' names other"):
        answers(server, "well", model="other")


def test_the_key_reaches_the_server_and_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ChatServer(key=KEY)
    monkeypatch.setenv("FAR_KEY", KEY)
    (good,) = answers(server, "well", api_key_env="FAR_KEY")
    assert good.reason is None
    server.key = "another"
    with pytest.raises(CaptionerError, match=r"answers 401 to the key in \$FAR_KEY") as told:
        answers(server, "well", api_key_env="FAR_KEY")
    assert KEY not in str(told.value)
    monkeypatch.delenv("FAR_KEY")
    with pytest.raises(CaptionerError, match="the environment variable FAR_KEY is not set here"):
        answers(server, "well", api_key_env="FAR_KEY")
    server.close()


def test_a_key_that_the_server_says_stands_in_no_answer(monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> None:
    monkeypatch.setenv("CAPTION_KEY", "sk-secret-1")
    (answer,) = answers(server, "sk-secret-1 is it", api_key_env="CAPTION_KEY")
    assert answer.reason is None
    assert "sk-secret-1" not in answer.text
    assert "…" in answer.text


def test_a_server_that_answers_nothing_is_given_up(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "MOST_FAILED", 8)
    with pytest.raises(CaptionerError, match=r"none of 8 questions in a row; the last time: .*takes no pictures"):
        answers(server, *["fault:400"] * 20, concurrency=2)
    found = answers(server, *["fault:policy"] * 20, concurrency=2)
    assert {answer.reason for answer in found} == {"endpoint_refused"}


def test_nobody_there(server: ChatServer) -> None:
    gone = options(server, tries=2)
    server.close()
    (answer,) = build_captioner("far", gone).answers(asks("well"))
    assert answer.reason == "endpoint_connection"


def test_the_environments_proxies_get_nothing(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert answers(server, "well")[0].reason is None


def test_a_second_attempt_is_drawn_by_its_seed(server: ChatServer) -> None:
    captioner = build_captioner("far", options(server))
    assert len(list(captioner.answers(asks("a", "b", seed=7)))) == 2
    seeds = {question["seed"] for question in server.questions}
    assert (len(seeds), {question["temperature"] for question in server.questions}) == (2, {0.7})


def test_neither_the_place_nor_the_speed_is_part_of_a_key(server: ChatServer) -> None:
    first = captioner_settings("far", options(server))
    other = options(server, base_url="http://elsewhere/v1", concurrency=3, tries=9, price_answer=1.0)
    assert captioner_settings("far", other) == first
    assert captioner_settings("far", options(server, revision="2")) != first
    assert captioner_weights("far", options(server)) == ()
    assert captioner_promise("far", options(server)) == "not promised"


def test_its_thread_ends_with_it(server: ChatServer) -> None:
    import gc
    import threading

    captioner = build_captioner("gone", options(server))
    assert len(list(captioner.answers(asks("a")))) == 1
    del captioner
    gc.collect()
    until = time.monotonic() + 5
    while any(thread.name == "endpoint-gone" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.name == "endpoint-gone" for thread in threading.enumerate())
