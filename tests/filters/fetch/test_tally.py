"""filters/fetch/tally.py: how far a fetch is, and which hosts it waits for."""

import threading

import pytest

from filters.fetch import tally
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.hosts import FetchTask, Host, Site
from filters.fetch.messages import Request
from filters.fetch.tally import Tally, slowest
from tests.support.fetching import SILENT, config
from tests.support.hostile_server import HostileServer


def host(name: str, began: float, ended: int, waiting: int, active: int = 0) -> Host:
    settings = FetchConfig()
    found = Host(settings, name, Site(settings, name), began=began, ended=ended, active=active)
    found.waiting.extend([FetchTask(Request(b"", ""), "", "", 1.0, 0)] * waiting)
    return found


def test_the_hosts_that_will_take_longest_come_first() -> None:
    """At 100 s: `dead` has ended none of its 5 in 40 s, `slow` 10 of 20 in 80 s, `quick` 100 of 101 in 80 s."""
    hosts = [
        host("quick", 20.0, 100, 1),
        host("dead", 60.0, 0, 3, active=2),
        host("slow", 20.0, 10, 10),
        host("not begun", 0.0, 0, 50),
        host("over", 10.0, 9, 0),
        host("fast", 99.0, 10, 1),
    ]
    assert slowest(hosts, 100.0) == (("dead", 5, 40.0), ("slow", 10, 80.0), ("quick", 1, 80.0))


def test_a_silent_host_is_named_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "EVERY_S", 0.1)
    told: list[Tally] = []
    first = threading.Event()

    def watch(word: Tally) -> None:
        told.append(word)
        if word.done == 3:
            first.set()

    with HostileServer("127.0.0.2") as server:
        settings = config(server, **SILENT, connect_to={":": f"127.0.0.2:{server.port}"}, deadline_s=1)
        urls = [*["http://a.example/good"] * 2, "ftp://a.example/x", *["http://silent.example/silent"] * 4]
        answers = list(fetch_all([Request(bytes([n]), url) for n, url in enumerate(urls)], settings, watch=watch))
    assert len(answers) == 7
    assert first.is_set()
    named = [word.slowest for word in told if word.done == 3]
    assert {(name, left) for hosts in named for name, left, _ in hosts} == {("silent.example", 4)}
    assert all(0 < seconds < 2 for hosts in named for _, _, seconds in hosts)
    assert told[-1] == Tally(7, 7)
