"""Connections: only to addresses that the guard allows, and used again only where nothing unasked came through."""

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp.abc import ResolveResult

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.connector import Connector, blocked
from filters.fetch.dns import Resolver
from filters.fetch.guard import BlockedAddress, Guard
from filters.fetch.messages import Request
from filters.fetch.politeness import HostQueues
from filters.fetch.protocol import LenientHandler
from tests.support.fetching import SILENT, fetch
from tests.support.hostile_server import GOOD, Exchange, HostileServer


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """On 127.0.0.2, the one address that may be dialled: 127.0.0.1 is as private as any other."""
    with HostileServer("127.0.0.2") as running:
        yield running


def test_the_socket_is_where_the_guard_looks() -> None:
    """Whatever a resolver said before: the sockaddr that is about to be dialled is judged."""
    connector = Connector.__new__(Connector)
    connector.guard = Guard.of(["127.0.0.2/32"])
    with pytest.raises(BlockedAddress):
        connector._socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    connector._socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 80))).close()


def test_private_addresses_are_refused_before_anything_is_sent() -> None:
    with HostileServer("127.0.0.1") as private:
        port = private.port
        urls = [
            f"http://{host}:{port}/good"
            for host in ("127.0.0.1", "2130706433", "0x7f000001", "0177.1", "127.1", "[::ffff:127.0.0.1]", "localhost")
        ]
        mapped = [f"http://{host}/good" for host in ("rebound.example", "8.8.8.8", "[2606:4700::1111]")]
        table = dict.fromkeys(("rebound.example", "8.8.8.8", "[2606:4700::1111]"), f"127.0.0.1:{port}")
        answers = fetch(private, *urls, *mapped, connect_to=table)
        assert [answer.reason for answer in answers] == ["blocked_address"] * 10
        assert private.requests == []
        open_ = fetch(private, *mapped, connect_to=table, allow_addresses=["127.0.0.0/8"], **SILENT)
        assert [answer.body for answer in open_] == [GOOD] * 3
        assert sorted(host for host, _ in private.requests) == ["8.8.8.8", "[2606:4700::1111]", "rebound.example"]


def test_a_resolver_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: names are filtered when they are looked up, yet the socket is judged again when it is dialled."""

    async def lie(self: Resolver, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=private.port, family=2, proto=6, flags=0)]

    monkeypatch.setattr(Resolver, "resolve", lie)
    with HostileServer("127.0.0.1") as private:
        assert [answer.reason for answer in fetch(private, "http://rebinding.example/good", connect_to={})] == [
            "blocked_address"
        ]
        assert private.requests == []


def test_a_name_with_one_good_address_is_dialled_there(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    answers = fetch(server, f"http://both.example:{server.port}/good", connect_to={})
    assert [answer.reason for answer in answers] == [None]


def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request() -> None:
    """Keep-alive poison: after a whole answer comes another one, unasked, which must not pass for the next URL's."""

    def poisoned(x: Exchange) -> None:
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nTRUE")
        if x.target.endswith("late"):
            threading.Event().wait(0.1)
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
        threading.Event().wait(1.0)  # the connection stays open meanwhile

    with HostileServer("127.0.0.2", {"/poison": poisoned}) as other:
        for kind in ("early", "late"):
            answers = fetch(other, f"/poison?{kind}", "/good", concurrency=1, host_rate=2, **SILENT)
            assert [answer.body for answer in answers] == [b"TRUE", GOOD]


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    """The server ends a connection that it promised to keep: the next URL goes out on a fresh one and is no
    `connection`."""

    def closing(x: Exchange) -> None:
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nTRUE")
        x.sock.recv(65536)  # the next request comes, and the connection is closed without an answer

    with HostileServer("127.0.0.2", {"/closing": closing}) as other:
        answers = fetch(other, "/closing", "/good", concurrency=1, **SILENT)
        assert [(answer.body, answer.attempts) for answer in answers] == [(b"TRUE", 1), (GOOD, 1)]


def test_a_refusal_is_found_inside_a_connection_error() -> None:
    refusal, outer, inner = BlockedAddress("10.0.0.1", "private"), OSError("outer"), OSError("inner")
    inner.__cause__, outer.__cause__ = refusal, inner
    assert blocked(outer) is blocked(refusal) is refusal
    assert blocked(OSError("another")) is None


def test_idle_connections_are_bounded_and_the_longest_idle_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp's own pool keeps any number; ours closes the oldest beyond two."""

    class Protocol:
        open = True

        def is_connected(self) -> bool:
            return self.open

        def close(self) -> None:
            self.open = False

    connector = Connector.__new__(Connector)
    connector.idle, connector.most_idle, connector.of_site = OrderedDict(), 2, {}
    connector.traffic = HostQueues(FetchConfig())
    key = SimpleNamespace(host="a.example")
    monkeypatch.setattr(aiohttp.TCPConnector, "_release", lambda *_, **__: None)
    monkeypatch.setattr(Connector, "__del__", lambda self: None)
    first, closed, second, third = (Protocol() for _ in range(4))
    closed.close()  # by its server: it is not one of those that are idle
    for protocol in (first, closed, second):
        connector._release(key, protocol)  # type: ignore[arg-type]
    assert (first.open, second.open) == (True, True)
    connector._release(key, third)  # type: ignore[arg-type]
    assert (first.open, second.open, third.open) == (False, True, True)


def test_idle_connections_count_among_those_of_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine hosts of one site over a server that keeps connections open: three are open at once, and are used again."""
    now = most = made = 0

    class Counted(LenientHandler):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal now, most, made
            now, made = now + 1, made + 1
            most = max(most, now)
            super().connection_made(transport)

        def connection_lost(self, exc: BaseException | None) -> None:
            nonlocal now
            now -= 1
            super().connection_lost(exc)

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while b"\r\n\r\n" in sock.recv(65536):
                time.sleep(0.01)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    monkeypatch.setattr("filters.fetch.connector.LenientHandler", Counted)
    with socket.create_server(("127.0.0.2", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        config = FetchConfig.model_validate(
            {
                **SILENT,
                "connect_to": {":": f"127.0.0.2:{listener.getsockname()[1]}"},
                "allow_addresses": ["127.0.0.2/32"],
                "host_rate": 10_000,
                "host_connections": 3,
            }
        )
        urls = [f"http://img{number // 6 + 1}.cdn.example/{number}" for number in range(54)]
        answers = list(fetch_all([Request(bytes([n]), url) for n, url in enumerate(urls)], config))
        listener.shutdown(socket.SHUT_RDWR)
    assert [answer.body for answer in answers] == [GOOD] * 54
    assert (most, now) == (3, 0)
    assert made < 54
