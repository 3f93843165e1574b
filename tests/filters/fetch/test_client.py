"""Many URLs at a time: order, deadlines, slots and threads, against a hostile server on loopback addresses."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Request
from tests.support.fetching import SILENT, config, fetch
from tests.support.hostile_server import GOOD, Exchange, HostileServer
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """On 127.0.0.2, the one address that may be dialled: 127.0.0.1 is as private as any other."""
    with HostileServer("127.0.0.2") as running:
        yield running


def test_the_deadline_holds_while_the_caller_works(server: HostileServer) -> None:
    """The loop has its own thread: what the caller does with one answer takes nothing from the others' deadlines."""
    waiting = fetch_all(
        [Request(b"good", server.url("/good")), Request(b"slow", server.url("/slow-body"))],
        config(server, deadline_s=0.5),
    )
    assert next(waiting).uid == b"good"
    threading.Event().wait(1.5)
    assert next(waiting).reason == "timeout"


def test_urls_that_are_never_asked_for(server: HostileServer) -> None:
    urls = (
        "",
        "no url",
        "http://",
        "file:///etc/hostname",
        "data:,x",
        "ftp://a.example/",
        "http://nowhere.invalid/x",
        "http://x.INVALID./",
        "https://\x00/",
        "http://hostile.example:0/",
        "http://hostile.example:65536/",
        "javascript:alert(1)",
        "http://user:secret@bücher.invalid/",
    )
    reasons = (
        ["bad_url"] * 3
        + ["blocked_scheme"] * 3
        + ["dns", "dns", "bad_url", "bad_url", "bad_url", "blocked_scheme", "dns"]
    )
    assert [answer.reason for answer in fetch(server, *urls)] == reasons


def test_only_passing_faults_are_tried_again_and_once(server: HostileServer) -> None:
    lock = threading.Lock()
    seen: dict[str, int] = {}

    def flaky(x: Exchange) -> None:
        with lock:
            seen[x.target] = seen.get(x.target, 0) + 1
            first = seen[x.target] == 1
        if x.target.endswith("gone"):
            x.answer(b"", "404 Not Found")
        elif first or x.target.endswith("always"):
            x.answer(b"", "503 Service Unavailable")
        else:
            x.answer(GOOD)

    with HostileServer("127.0.0.2", {"/flaky": flaky}) as other:
        assert [answer.reason for answer in fetch(other, "/flaky?a", "/flaky?b-always")] == ["http_503", "http_503"]
        seen.clear()
        answers = fetch(other, "/flaky?a", "/flaky?b-always", "/flaky?gone", retries=1)
        assert [answer.reason for answer in answers] == [None, "http_503", "http_404"]
        assert seen == {"/flaky?a": 2, "/flaky?b-always": 2, "/flaky?gone": 1}


def test_no_more_than_concurrency_in_flight() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def counted(x: Exchange) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.02)
        with lock:
            now -= 1
        x.answer(GOOD)

    with HostileServer("127.0.0.2", {"/counted": counted}) as busy:
        answers = fetch(busy, *["/counted"] * 40, concurrency=4)
        assert {answer.reason for answer in answers} == {None}
        assert 1 <= most <= 4


def test_answers_nobody_takes_hold_the_next_requests_back(server: HostileServer) -> None:
    with HostileServer("127.0.0.2") as counting:
        waiting = fetch_all(
            [Request(bytes([n]), counting.url("/good")) for n in range(20)], config(counting, concurrency=3, **SILENT)
        )
        next(waiting)
        threading.Event().wait(0.3)
        assert len(counting.requests) <= 4  # three that wait to be taken, and the one that was
        assert len(list(waiting)) == 19


def test_closing_early_ends_what_is_in_flight(server: HostileServer) -> None:
    before = threading.active_count()
    waiting = fetch_all(
        [Request(b"good", server.url("/good")), *[Request(b"slow", server.url("/slow-body"))] * 5], config(server)
    )
    assert next(waiting).uid == b"good"
    waiting.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"], before


def test_it_works_in_other_threads_and_many_times(server: HostileServer) -> None:
    found: list[str | None] = []

    def work() -> None:
        for _ in range(3):
            found.extend(answer.reason for answer in fetch(server, "/good", "/404"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None, "http_404"] * 9
    assert list(fetch_all([], config(server))) == []


def test_wrong_settings_raise_before_any_work() -> None:
    wrong = FetchConfig().model_copy(update={"connect_to": {"a:b:c": "x"}})
    with pytest.raises(ValueError, match="connect_to"):
        fetch_all([], wrong)


MEMORY = """
import resource, sys
sys.path.insert(0, {tests!r})
from tests.support.hostile_server import HostileServer
from filters.fetch.client import FetchConfig, fetch_all
from filters.fetch.messages import Request
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
table = {{"hostile.example": "127.0.0.2:{port}"}}
config = FetchConfig(connect_to=table, allow_addresses=["127.0.0.2/32"], deadline_s=120, max_bytes=20_000_000,
    host_connections=64, breaker_faults=1000)
list(fetch_all([Request(b"warm", "http://hostile.example/good")], config))
before = peak()
paths = ["/endless-body", "/endless-chunks", "/gzip-bomb", "/endless-header-line", "/endless-header-lines",
"/endless-trailers"] * 8
reasons = [answer.reason for answer in fetch_all([Request(b"", "http://hostile.example" + path) for path in paths],
config)]
print(reasons.count("too_large"), reasons.count("bad_response"), peak() - before)
"""


def test_memory_stays_bounded_however_much_is_sent(server: HostileServer) -> None:
    """24 bodies of 20 MB and more at once: 480 MB, were they held in memory; 1 MiB of each is."""
    script = MEMORY.format(tests=str(ROOT), port=server.port)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    too_large, bad_response, grown_mib = map(int, done.stdout.split())
    assert (too_large, bad_response) == (24, 24)
    assert grown_mib < 128
