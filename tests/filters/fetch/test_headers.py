"""Headers alone are asked for: a HEAD, a GET where a server knows none, and never a picture's bytes."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from filters.fetch.config import FetchConfig
from filters.fetch.headers import header_answers, site_answers
from filters.fetch.messages import Answer, Request
from filters.fetch.optout import Receipt
from filters.fetch.sites import SiteCache
from tests.support.counting import Counting, most_within
from tests.support.hostile_server import GOOD, Behaviour, Exchange, HostileServer

SIGNAL = Receipt("robots.txt Content-Signal", "Content-Signal: /sold ai-train=no")


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer("127.0.0.2") as running:
        yield running


def settings(server: HostileServer, **more: object) -> FetchConfig:
    table = {":": f"{server.address}:{server.port}", "dead.example": "127.0.0.2:1"}
    known = {"allow_addresses": ["127.0.0.2/32"], "host_rate": 10_000, "connect_to": table, "breaker_faults": 1000}
    return FetchConfig.model_validate({**known, **more})


def by_url(server: HostileServer, urls: list[str], sites_only: bool = False) -> list[Answer]:
    requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(urls)]
    config = settings(server)
    answers = (
        site_answers(requests, config, SiteCache()) if sites_only else header_answers(requests, config, SiteCache())
    )
    return sorted(answers, key=lambda answer: answer.uid)


def knows_head(body: bytes, *headers: str) -> Behaviour:
    """Answer a HEAD with a header alone, and a GET with the body."""
    return lambda x: x.answer(b"" if x.head.startswith(b"HEAD ") else body, "200 OK", *headers)


def knows_no_head(status: str, *headers: str) -> Behaviour:
    """Answer a HEAD with a status, and a GET with a picture."""
    return lambda x: x.answer(b"", status) if x.head.startswith(b"HEAD ") else x.answer(GOOD, "200 OK", *headers)


def test_headers_are_read_and_no_body_is_taken(server: HostileServer) -> None:
    server.behaviours["/fine"] = knows_head(GOOD)
    server.behaviours["/noai"] = knows_head(GOOD, "X-Robots-Tag: noai")
    server.behaviours["/moved"] = lambda x: x.answer(b"", "302 Found", "Location: /noai")
    server.behaviours["/gone"] = lambda x: x.answer(b"", "404 Not Found")
    answers = by_url(server, [f"http://a.example/{name}" for name in ("fine", "noai", "moved", "gone")])
    assert [answer.reason for answer in answers] == [None, "opted_out", "opted_out", "http_404"]
    assert [answer.receipt for answer in answers[:3]] == [None, *[Receipt("X-Robots-Tag", "noai")] * 2]
    assert {answer.body for answer in answers} == {b"", None}


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "501 Not Implemented", "403 Forbidden"])
def test_a_server_without_head_gets_a_get(server: HostileServer, status: str) -> None:
    server.behaviours["/fine"] = knows_no_head(status)
    server.behaviours["/usage"] = knows_no_head(status, "Content-Usage: train-ai=n")
    fine, usage = by_url(server, ["http://a.example/fine", "http://a.example/usage"])
    assert (fine.reason, fine.body) == (None, b"")
    assert (usage.reason, usage.receipt) == ("opted_out", Receipt("Content-Usage header", "train-ai=n"))


@pytest.mark.parametrize("sites_only", [False, True])
def test_sites_are_asked_again(server: HostileServer, sites_only: bool) -> None:
    server.behaviours["/robots.txt"] = lambda x: x.answer(
        b"User-agent: *\nDisallow: /no\nContent-Signal: /sold ai-train=no"
    )
    server.behaviours["/good"] = knows_head(GOOD)
    urls = [f"http://a.example/{name}" for name in ("no/1", "sold/2", "good")]
    answers = by_url(server, [*urls, "http://dead.example/x", "not a url"], sites_only)
    assert [answer.reason for answer in answers] == ["robots", "opted_out", None, "connection", "bad_url"]
    assert [answer.receipt for answer in answers[:3]] == [Receipt("robots.txt", "Disallow: /no"), SIGNAL, None]
    asked = Counter(target for host, target in server.requests if host == "a.example")
    assert asked == {"/robots.txt": 1, "/.well-known/tdmrep.json": 1, **({} if sites_only else {"/good": 1})}


@pytest.mark.parametrize("sites_only", [False, True])
def test_a_refusal_that_may_pass_has_no_receipt(server: HostileServer, sites_only: bool) -> None:
    server.behaviours["/robots.txt"] = lambda x: x.answer(b"", "500 Oops")
    requests = [Request(bytes(16), "http://a.example/good")]
    config = settings(server, max_wait_s=0)
    ask = site_answers if sites_only else header_answers
    (answer,) = ask(requests, config, SiteCache())
    assert (answer.reason, answer.receipt) == ("robots", None)


HEADS: dict[str, Behaviour] = {
    "404": lambda x: x.answer(b"", "404 Not Found"),
    "406": lambda x: x.answer(b"", "406 Not Acceptable"),
    "429": lambda x: x.answer(b"", "429 Too Many Requests"),
    "503": lambda x: x.answer(b"", "503 Service Unavailable"),
    "204": lambda x: x.answer(b"", "204 No Content"),
    "moved": lambda x: x.answer(b"", "302 Found", "Location: /login"),
    "hung": lambda x: x.drip(b"", b""),
    "closed": lambda x: None,
    "reset": lambda x: x.reset(),
    "garbage": lambda x: x.send(b"\0\1 garbage\r\n\r\n"),
}


@pytest.mark.parametrize("how", HEADS)
def test_what_a_get_refuses_is_found_whatever_a_head_meets(server: HostileServer, how: str) -> None:
    def either(*headers: str) -> Behaviour:
        return lambda x: HEADS[how](x) if x.head.startswith(b"HEAD ") else x.answer(GOOD, "200 OK", *headers)

    server.behaviours["/noai"] = either("X-Robots-Tag: noai")
    server.behaviours["/fine"] = either()
    requests = [Request(bytes([n]) * 16, f"http://a.example/{name}") for n, name in enumerate(("noai", "fine"))]
    answers = sorted(header_answers(requests, settings(server, deadline_s=1.5), SiteCache()), key=lambda one: one.uid)
    assert [answer.receipt for answer in answers] == [Receipt("X-Robots-Tag", "noai"), None]
    assert [answer.reason for answer in answers] == ["opted_out", None]


@pytest.mark.parametrize("rest", [b"a body", b"HTTP/1.1 200 OK\r\n\r\n", b"\0\1\2" * 1000])
def test_the_headers_of_a_head_are_judged_whatever_follows_them(server: HostileServer, rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: %d\r\n\r\n" % len(rest)
    server.behaviours["/noai"] = lambda x: x.send(head + rest)
    (answer,) = by_url(server, ["http://a.example/noai"])
    assert (answer.reason, answer.receipt) == ("opted_out", Receipt("X-Robots-Tag", "noai"))
    assert Counter(target for _, target in server.requests)["/noai"] == 1


def test_the_pace_is_that_of_fetching_where_sites_alone_are_asked() -> None:
    """Twenty hosts of one site, two files each, at twenty requests a second and two connections."""
    counting = Counting(0.02)
    paths = ("/robots.txt", "/.well-known/tdmrep.json")
    with HostileServer("127.0.0.2", dict.fromkeys(paths, counting)) as server:
        requests = [Request(n.to_bytes(16, "big"), f"http://img{n % 20}.cdn.example/{n}.jpg") for n in range(200)]
        config = settings(server, host_rate=20, host_connections=2)
        answers = list(site_answers(requests, config, SiteCache()))
    asked = counting.asked_of("cdn.example")
    assert Counter(answer.reason for answer in answers) == {None: 200}
    assert len(asked) == 40
    assert asked[-1] - asked[0] >= 1.6  # 39 gaps of 0.05 s, less those within a job and what may be made up for
    assert most_within(asked, 0.5) <= 10 + 4
    assert counting.most["cdn.example"] <= 2


def test_a_get_after_a_head_is_a_request_of_its_own_and_a_site_without_head_is_asked_once(
    server: HostileServer,
) -> None:
    moments: list[float] = []

    def told(status: str) -> Behaviour:
        def answer(x: Exchange) -> None:
            moments.append(time.monotonic())
            x.answer(GOOD, status if x.head.startswith(b"HEAD ") else "200 OK")

        return answer

    for status, asked in (("406 Not Acceptable", 20), ("405 Method Not Allowed", 11)):
        moments.clear()
        server.behaviours["/x"] = told(status)
        requests = [Request(bytes([n]) * 16, f"http://a{asked}.example/x?{n}") for n in range(10)]
        config = settings(server, host_rate=20, host_connections=1)
        assert {one.reason for one in header_answers(requests, config, SiteCache())} == {None}
        assert len(moments) == asked
        assert moments[-1] - moments[0] >= (asked - 1) * 0.05 - 0.2
