"""filters/fetch: politeness.py: turns, pace, patience and the breaker, alone and against servers on loopback
addresses."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable

import pytest

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Answer, Request
from filters.fetch.politeness import FetchTask, HostQueues, retry_after
from tests.support.hostile_server import GOOD, Behaviour, Exchange, HostileServer

PLAIN = {"robots": False, "opt_outs": [], "allow_addresses": ["127.0.0.2/32"], "host_rate": 10_000, "deadline_s": 60}


def config(**settings: object) -> FetchConfig:
    return FetchConfig.model_validate({**PLAIN, **settings})


def ask(server: HostileServer, urls: Iterable[str], **settings: object) -> list[Answer]:
    """Return the answers in the order in which they came; every host name leads to the server."""
    requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(urls)]
    answers = list(fetch_all(requests, config(connect_to={":": f"{server.address}:{server.port}"}, **settings)))
    assert sorted(answer.uid for answer in answers) == [request.uid for request in requests]
    return answers


class Moody:
    """A behaviour that does one thing for the first `bad` requests, and answers well after that; it knows when it was
    asked."""

    def __init__(self, bad: int, how: Behaviour) -> None:
        self.bad, self.how = bad, how
        self.lock = threading.Lock()
        self.asked: list[float] = []

    def __call__(self, x: Exchange) -> None:
        with self.lock:
            self.asked.append(time.monotonic())
            bad = len(self.asked) <= self.bad
        if bad:
            self.how(x)
        else:
            x.answer(GOOD)


def busy(*headers: str, status: str = "429 Too Many Requests") -> Behaviour:
    return lambda x: x.answer(b"", status, *headers)


DATE = "Date: Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120),
        (" 0 ", None, 0),
        ("9" * 40, None, 999_999_999_999),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2015 07:28:30 GMT", None, 0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "never", 0),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("", None, None),
        (None, None, None),
        ("Wed, 99 Foo 2015 77:28:30 GMT", None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry_after(value, date) == seconds


@pytest.mark.parametrize("headers", [("Retry-After: 1",), (DATE, "Retry-After: Wed, 21 Oct 2015 07:28:01 GMT")])
def test_patience_is_granted_and_does_not_eat_the_deadline(headers: tuple[str, ...]) -> None:
    moody = Moody(1, busy(*headers))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        (answer,) = ask(server, ["http://a.example/moody"], deadline_s=0.9)
    assert (answer.reason, answer.body, answer.attempts) == (None, GOOD, 2)
    assert moody.asked[1] - moody.asked[0] >= 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_what_is_longer_than_we_wait_is_not_waited_for(status: str) -> None:
    moody = Moody(99, busy("Retry-After: 100000", status=status))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(server, ["http://a.example/moody"] * 5)
    assert [(answer.reason, answer.attempts) for answer in answers] == [(f"http_{status[:3]}", 1)] * 5


def test_patience_ends_and_the_real_reason_stands() -> None:
    moody = Moody(999, busy("Retry-After: 0"))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(server, ["http://a.example/moody"] * 10, retries=0)
        server.behaviours["/moody"] = busy()
        without = ask(server, ["http://b.example/moody"], max_wait_s=0)
    assert [(answer.reason, answer.attempts) for answer in answers] == [("http_429", 3)] * 10
    assert [(answer.reason, answer.attempts) for answer in without] == [("http_429", 1)]


def test_a_host_that_waits_holds_nobody_up() -> None:
    """Two connections in all, 30 URLs of a host that asks for a pause first: those of the other host come through
    meanwhile."""
    moody = Moody(2, busy("Retry-After: 2"))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        urls = [f"http://slow.example/moody?{n}" for n in range(30)] + [
            f"http://quick.example/good?{n}" for n in range(20)
        ]
        answers = ask(server, urls, concurrency=2)
    assert {answer.reason for answer in answers} == {None}
    assert {answer.final_url.split("/")[2] for answer in answers[:20]} == {"quick.example"}
    assert moody.asked[2] - moody.asked[0] >= 2


def test_a_redirect_waits_at_the_host_that_it_leads_to() -> None:
    moody = Moody(1, busy("Retry-After: 2"))
    behaviours: dict[str, Behaviour] = {
        "/moody": moody,
        "/to": lambda x: x.answer(b"", "302 Found", "Location: http://slow.example/moody"),
    }
    with HostileServer("127.0.0.2", behaviours) as server:
        urls = ["http://slow.example/moody", *["http://short.example/to"] * 20, *["http://quick.example/good"] * 10]
        answers = ask(server, urls, concurrency=2)
    assert {answer.reason for answer in answers} == {None}
    assert Counter(answer.final_url.split("/")[2] for answer in answers[:10]) == {"quick.example": 10}


def test_connections_and_rate_of_a_host() -> None:
    lock, now, most = threading.Lock(), Counter[str](), Counter[str]()
    asked: list[float] = []

    def counted(x: Exchange) -> None:
        host = x.fields["host"]
        with lock:
            asked.append(time.monotonic())
            now[host] += 1
            most[host] = max(most[host], now[host])
        threading.Event().wait(0.03)
        with lock:
            now[host] -= 1
        x.answer(GOOD)

    with HostileServer("127.0.0.2", {"/counted": counted}) as server:
        ask(server, [f"http://{host}.example/counted" for host in "ab" * 20], host_connections=3)
        assert most["a.example"] <= 3
        assert most["b.example"] <= 3
        asked.clear()
        ask(server, ["http://c.example/counted"] * 6, host_rate=10)
    assert asked[-1] - asked[0] >= 0.4  # five gaps of 0.1 s, less what a slow machine adds to the first


def test_every_row_of_a_dead_host_gets_its_own_reason_in_bounded_time() -> None:
    with HostileServer("127.0.0.2") as gone:
        pass
    started = time.monotonic()
    table = {"dead.example": f"127.0.0.2:{gone.port}"}
    settings = {"breaker_faults": 5, "breaker_rest_s": 0.2, "max_wait_s": 1.0}
    for rules in ({}, {"robots": True}):
        requests = [Request(number.to_bytes(16, "big"), f"http://dead.example/{number}") for number in range(500)]
        answers = list(fetch_all(requests, config(connect_to=table, **settings, **rules)))
        assert Counter(answer.reason for answer in answers) == {"connection": 500}
        assert {answer.attempts for answer in answers} == {1}
    assert time.monotonic() - started < 120


def test_a_host_that_recovers_yields_pictures() -> None:
    """Twelve resets open the breaker; URLs that were postponed come through, and nobody is hammered meanwhile."""
    moody = Moody(12, lambda x: x.reset())
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(server, ["http://a.example/moody"] * 300, breaker_faults=5, breaker_rest_s=0.1, max_wait_s=60)
    assert Counter(answer.reason for answer in answers) == {None: 288, "connection": 12}


def test_a_failing_host_rests_and_one_url_at_a_time_tries_it() -> None:
    moody = Moody(999, lambda x: x.answer(b"", "500 Oops"))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(
            server,
            ["http://a.example/moody"] * 6,
            breaker_faults=2,
            breaker_rest_s=0.2,
            max_wait_s=1,
            host_connections=1,
        )
    assert {answer.reason for answer in answers} == {"http_500"}
    gaps = [after - before for before, after in zip(moody.asked, moody.asked[1:], strict=False)]
    assert gaps[1] >= 0.2  # after two faults, a rest; then twice as long
    assert gaps[2] >= 0.4
    assert len(gaps) == 5


def test_ten_thousand_urls_of_one_host_are_no_tasks_and_let_others_through() -> None:
    async def run() -> tuple[list[str], int]:
        traffic = HostQueues(config(host_connections=4))
        for number in range(10_000):
            url = f"http://big.example/{number}"
            traffic.add(FetchTask(Request(b"", url), url, url, 1.0, 0))
        traffic.add(
            FetchTask(Request(b"", "http://small.example/"), "http://small.example/", "http://small.example/", 1.0, 0)
        )
        taken = [await traffic.next() for _ in range(5)]
        assert len(traffic.ready) < 10
        return [job.url for job in taken if job], len(asyncio.all_tasks())

    urls, tasks = asyncio.run(run())
    assert "http://small.example/" in urls
    assert len(urls) == 5
    assert tasks == 1


def test_jitter_depends_on_the_row_and_the_attempt_alone() -> None:
    job = FetchTask(Request(b"uid", "u"), "u", "u", 1.0, 0)
    first = job.jitter()
    job.attempts = 1
    assert 0 <= first < 1
    assert job.jitter() != first == FetchTask(Request(b"uid", "u"), "u", "u", 9.0, 5).jitter()
