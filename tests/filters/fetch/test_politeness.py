"""filters/fetch: politeness.py: turns, pace, patience and the breaker, alone and against servers on loopback
addresses."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from filters.fetch.budget import Share
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.hosts import FetchTask
from filters.fetch.messages import Answer, Request
from filters.fetch.politeness import HostQueues
from tests.support.counting import Counting, most_within
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
    """A behaviour that answers well `well` times, does one thing for the next `bad` requests, and answers well after
    that; it knows when it was asked."""

    def __init__(self, bad: int, how: Behaviour, well: int = 0) -> None:
        self.bad, self.how, self.well = bad, how, well
        self.lock = threading.Lock()
        self.asked: list[float] = []

    def __call__(self, x: Exchange) -> None:
        with self.lock:
            self.asked.append(time.monotonic())
            bad = self.well < len(self.asked) <= self.well + self.bad
        if bad:
            self.how(x)
        else:
            x.answer(GOOD)


def busy(*headers: str, status: str = "429 Too Many Requests") -> Behaviour:
    return lambda x: x.answer(b"", status, *headers)


DATE = "Date: Wed, 21 Oct 2015 07:28:00 GMT"


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
    moody = Moody(2, busy("Retry-After: 1"))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        urls = [f"http://slow.example/moody?{n}" for n in range(30)] + [
            f"http://quick.example/good?{n}" for n in range(20)
        ]
        answers = ask(server, urls, concurrency=2)
    assert {answer.reason for answer in answers} == {None}
    assert {answer.final_url.split("/")[2] for answer in answers[:20]} == {"quick.example"}
    assert moody.asked[2] - moody.asked[0] >= 1


def test_a_redirect_waits_at_the_host_that_it_leads_to() -> None:
    moody = Moody(1, busy("Retry-After: 1"))
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


def test_a_host_that_refuses_is_down_after_the_breakers_faults() -> None:
    """500 URLs, five faults in a row allowed: those on their way meanwhile have their own reason, the rest none."""
    with HostileServer("127.0.0.2") as gone:
        pass
    started = time.monotonic()
    table = {"dead.example": f"127.0.0.2:{gone.port}"}
    for rules in ({}, {"robots": True}, {"retries": 2}):
        requests = [Request(number.to_bytes(16, "big"), f"http://dead.example/{number}") for number in range(500)]
        answers = list(fetch_all(requests, config(connect_to=table, breaker_faults=5, **rules)))
        reasons = Counter(answer.reason for answer in answers)
        assert reasons.total() == 500
        assert set(reasons) == {"connection", "host_down"}
        assert reasons["connection"] <= 5 + 8
        never_asked = [answer for answer in answers if answer.attempts == 0]
        assert {(answer.reason, answer.status, answer.body) for answer in never_asked} == {("host_down", None, None)}
        assert len(never_asked) >= 500 - 13
    assert time.monotonic() - started < 20


def ask_silence(rules: dict[str, object]) -> tuple[Counter[str | None], float]:
    """Ask a silent host for 100 URLs, and, without robots, another for one; return the reasons and the seconds."""
    with HostileServer("127.0.0.2", {"/robots.txt": lambda x: x.drip(b"", b"")}) as server:
        started = time.monotonic()
        urls = [f"http://silent.example/silent?{number}" for number in range(100)] + ["http://b.example/good"]
        if "robots" in rules:
            urls.pop()
        answers = ask(server, urls, **{"deadline_s": 0.7, **rules})
        return Counter(answer.reason for answer in answers), time.monotonic() - started


def test_a_hundred_urls_of_a_silent_host_cost_three_deadlines() -> None:
    kinds: list[dict[str, object]] = [{}, {"robots": True, "opt_outs": ["tdmrep"]}, {"host_connections": 1}]
    with ThreadPoolExecutor(len(kinds)) as pool:  # most of it is waiting
        for reasons, took in pool.map(ask_silence, kinds):
            assert reasons["timeout"] + reasons["host_down"] == 100
            assert reasons["timeout"] <= 18
            assert took < 4 * 0.7


def test_a_host_that_answers_only_faults_is_tried_once_more() -> None:
    """Three faults, a rest of 0.3 s, one more: it is down, and what waits is not asked for."""
    moody = Moody(999, lambda x: x.answer(b"", "500 Oops"))
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(server, ["http://a.example/moody"] * 50, breaker_faults=3, breaker_rest_s=0.3, host_connections=1)
    assert Counter(answer.reason for answer in answers) == {"http_500": 4, "host_down": 46}
    assert len(moody.asked) == 4
    assert moody.asked[3] - moody.asked[2] >= 0.3


def test_a_host_that_leads_on_to_itself_and_then_is_silent_is_down() -> None:
    """Every URL is redirected once on its own name, and nothing comes then: three deadlines, one rest, one more."""
    behaviours: dict[str, Behaviour] = {"/to": lambda x: x.answer(b"", "302 Found", "Location: /silent")}
    with HostileServer("127.0.0.2", behaviours) as server:
        started = time.monotonic()
        urls = [f"http://a.example/to?{number}" for number in range(100)]
        answers = ask(server, urls, deadline_s=0.6, breaker_rest_s=0.3)
        took = time.monotonic() - started
    reasons = Counter(answer.reason for answer in answers)
    assert reasons["timeout"] + reasons["host_down"] == 100
    assert reasons["host_down"] >= 60
    assert took < 6 * 0.6 + 0.3


def test_robots_txt_that_leads_to_silence_makes_its_host_one_that_is_down() -> None:
    """As from http to https where that port is silent: no site has refused anything."""
    to: Behaviour = lambda x: x.answer(b"", "301 Moved Permanently", "Location: http://a.example:81/silent")  # noqa: E731
    with HostileServer("127.0.0.2", {"/robots.txt": to}) as server:
        started = time.monotonic()
        answers = ask(server, ["http://a.example/good"] * 100, deadline_s=0.6, robots=True)
        took = time.monotonic() - started
    reasons = Counter(answer.reason for answer in answers)
    assert reasons["timeout"] + reasons["host_down"] == 100
    assert reasons["host_down"] >= 75
    assert took < 4 * 0.6


def test_a_hundred_hosts_of_a_silent_site_cost_three_deadlines_and_one_that_answers_keeps_them() -> None:
    with HostileServer("127.0.0.2") as server:
        started = time.monotonic()
        answers = ask(server, [f"http://img{number}.dead.example/silent" for number in range(100)], deadline_s=0.6)
        took = time.monotonic() - started
        mixed = [f"http://img{number}.live.example/{'silent' if number else 'good'}" for number in range(40)]
        others = ask(server, mixed, deadline_s=0.2)
    reasons = Counter(answer.reason for answer in answers)
    assert reasons["timeout"] + reasons["host_down"] == 100
    assert reasons["host_down"] >= 70
    assert took < 4 * 0.6
    assert Counter(answer.reason for answer in others) == {None: 1, "timeout": 39}


def test_a_redirect_to_a_host_that_is_down() -> None:
    to_dead: Behaviour = lambda x: x.answer(b"", "302 Found", "Location: http://dead.example/")  # noqa: E731
    with HostileServer("127.0.0.2") as gone, HostileServer("127.0.0.2", {"/to": to_dead}) as server:
        pass
    with HostileServer("127.0.0.2", {"/to": to_dead}) as server:
        table = {"dead.example": f"127.0.0.2:{gone.port}", "": f"127.0.0.2:{server.port}"}
        requests = [Request(number.to_bytes(16, "big"), "http://a.example/to") for number in range(60)]
        settings = config(connect_to=table, breaker_faults=3, host_connections=1)
        answers = list(fetch_all(requests, settings))
    found = Counter((answer.reason, answer.status, answer.attempts) for answer in answers)
    assert found == {("connection", 302, 1): 3, ("host_down", 302, 1): 57}


def test_a_host_that_was_fine_once_is_asked_for_every_url() -> None:
    """One picture, then eight resets open the breaker; URLs that were postponed come through."""
    moody = Moody(8, lambda x: x.reset(), well=1)
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        settings = {"breaker_faults": 5, "breaker_rest_s": 0.1, "max_wait_s": 60, "host_connections": 1}
        answers = ask(server, ["http://a.example/moody"] * 300, **settings)
    assert Counter(answer.reason for answer in answers) == {None: 292, "connection": 8}


def test_a_failing_host_rests_and_one_url_at_a_time_tries_it() -> None:
    moody = Moody(999, lambda x: x.answer(b"", "500 Oops"), well=1)
    with HostileServer("127.0.0.2", {"/moody": moody}) as server:
        answers = ask(
            server,
            ["http://a.example/moody"] * 7,
            breaker_faults=2,
            breaker_rest_s=0.2,
            max_wait_s=1,
            host_connections=1,
        )
    assert Counter(answer.reason for answer in answers) == {None: 1, "http_500": 6}
    gaps = [after - before for before, after in zip(moody.asked, moody.asked[1:], strict=False)]
    assert gaps[2] >= 0.2  # after two faults, a rest; then twice as long
    assert gaps[3] >= 0.4
    assert len(gaps) == 6


def test_the_hosts_of_a_site_share_its_rate_and_connections() -> None:
    """Nine hosts of cdn.example at 20 requests a second and three connections; another site is not held up."""
    server_side = Counting(0.05)
    with HostileServer("127.0.0.2", {"/counted": server_side}) as server:
        urls = [f"http://img{number % 9 + 1}.cdn.example/counted" for number in range(30)]
        started = time.monotonic()
        ask(server, [*urls, *["http://other.example/counted"] * 3], host_rate=20, host_connections=3)
        took = time.monotonic() - started
    cdn = server_side.asked_of("cdn.example")
    assert len(cdn) == 30
    assert server_side.most["cdn.example"] <= 3
    assert took >= 29 / 20 - 0.15
    assert most_within(cdn, 0.5) <= 20 * 0.5 + 3
    assert server_side.asked_of("other.example")[-1] < cdn[-1]


def test_the_files_of_a_site_count_as_requests() -> None:
    """Four hosts of one site, each with robots.txt, tdmrep.json and two pictures: 16 requests at ten a second."""
    server_side = Counting(0.0)
    paths = ("/robots.txt", "/.well-known/tdmrep.json", "/counted")
    with HostileServer("127.0.0.2", dict.fromkeys(paths, server_side)) as server:
        urls = [f"http://img{number % 4}.cdn.example/counted" for number in range(8)]
        ask(server, urls, host_rate=10, robots=True, opt_outs=["tdmrep"])
    asked = server_side.asked_of("cdn.example")
    assert len(asked) == 16
    assert asked[-1] - asked[0] >= 1.2  # 15 gaps of 0.1 s, less those within the last three
    assert most_within(asked, 0.5) <= 5 + 3


def test_files_that_lead_to_one_site_wait_for_its_turns_off_the_clock() -> None:
    """Twenty sites' robots.txt lead to one host at ten a second: for longer than the deadline of each URL, and with two
    slots in all."""
    server_side = Counting(0.05)
    to: Behaviour = lambda x: x.answer(b"", "302 Found", "Location: http://central.example/robots.txt")  # noqa: E731

    def robots(x: Exchange) -> None:
        (server_side if x.fields["host"] == "central.example" else to)(x)

    with HostileServer("127.0.0.2", {"/robots.txt": robots}) as server:
        urls = [f"http://h{number}.example/good" for number in range(20)]
        answers = ask(server, urls, host_rate=10, host_connections=2, robots=True, deadline_s=1, concurrency=2)
    asked = server_side.asked_of("central.example")
    assert Counter(answer.reason for answer in answers) == {None: 20}
    assert len(asked) == 20
    assert most_within(asked, 0.5) <= 5 + 2
    assert asked[-1] - asked[0] >= 1.7  # 19 gaps of 0.1 s, less what may be made up for
    assert server_side.most["central.example"] <= 2


def test_requests_that_files_of_other_sites_lead_to_share_connections_over_processes(tmp_path: Path) -> None:
    """Two processes, one connection: the second is let in once the first has left, or after a deadline's time."""

    async def visits(deadline_s: float, wanted: list[str]) -> None:
        order: list[str] = []
        terms = config(host_connections=1, deadline_s=deadline_s)
        with closing(Share(tmp_path / "b", 0, 2).open()) as one, closing(Share(tmp_path / "b", 1, 2).open()) as two:

            async def second() -> None:
                async with HostQueues(terms, two).visit("http://b.shared.example/robots.txt"):
                    order.append("second")

            async with HostQueues(terms, one).visit("http://a.shared.example/robots.txt"):
                waiting = asyncio.create_task(second())
                await asyncio.sleep(0.3)
                order.append("first leaves")
            await waiting
        assert order == wanted

    asyncio.run(visits(20, ["first leaves", "second"]))
    asyncio.run(visits(0.1, ["second", "first leaves"]))


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
