"""Headers alone are asked for: a HEAD, a GET where a server knows none, and never a picture's bytes."""

from collections import Counter
from collections.abc import Iterator

import pytest

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.headers import site_answers
from filters.fetch.messages import Answer, Request
from filters.fetch.optout import Receipt
from filters.fetch.sites import SiteCache
from tests.support.hostile_server import GOOD, Behaviour, HostileServer

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
        site_answers(requests, config, SiteCache()) if sites_only else fetch_all(requests, config, headers_only=True)
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
    ask = site_answers if sites_only else lambda *args: fetch_all(*args, headers_only=True)
    (answer,) = ask(requests, config, SiteCache())
    assert (answer.reason, answer.receipt) == ("robots", None)
