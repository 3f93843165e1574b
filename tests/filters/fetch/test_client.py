"""filters/fetch: client.py, download.py, connector.py and faults.py against a hostile server on loopback addresses."""

import contextlib
import datetime
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters.fetch.body import Body
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Answer, Request
from tests.support.hostile_server import GOOD, Exchange, HostileServer
from tests.support.paths import ROOT

EXPECTED: dict[str, str | None] = {
    **dict.fromkeys(
        (
            "/good",
            "/good-chunked",
            "/good-to-the-end",
            "/gzip",
            "/deflate",
            "/deflate-raw",
            "/mislabelled-coding",
            "/html",
            "/echo",
        )
    ),
    **dict.fromkeys(("/redirect-good", "/redirect-utf8", "/sets-cookie")),
    **dict.fromkeys(
        ("/good-early-hints", "/good-http10", "/good-chunk-extension", "/good-trailers", "/gzip-two-headers")
    ),
    **dict.fromkeys(
        ("/redirect-307", "/redirect-userinfo", "/redirect-long", "/redirect-two-locations", "/space-before-colon")
    ),
    **dict.fromkeys(("/noai-for-others", "/tdm-free")),
    **dict.fromkeys(("/noai", "/noai-for-us", "/noai-redirect", "/tdm-reserved"), "opted_out"),
    **dict.fromkeys(
        ("/http09", "/chunk-size-bomb", "/chunk-size-negative", "/endless-trailers", "/zstd", "/gzip-twice"),
        "bad_response",
    ),
    **dict.fromkeys(
        ("/two-lengths", "/length-and-chunks", "/length-plus", "/length-absurd", "/nul-in-header"), "bad_response"
    ),
    **dict.fromkeys(("/status-99", "/status-1000", "/redirect-port-0", "/redirect-port-65536"), "bad_response"),
    **{f"/{status}": f"http_{status}" for status in (101, 300, 304, 500)},
    "/status-999": "http_999",
    "/429-no-word": "http_429",
    "/endless-tiny-chunks": "too_large",
    **dict.fromkeys(("/redirect-ftp", "/redirect-javascript"), "blocked_scheme"),
    **dict.fromkeys(("/redirect-nat64", "/redirect-6to4", "/redirect-aws6", "/redirect-alibaba"), "blocked_address"),
    **dict.fromkeys(("/redirect-zero", "/redirect-octal"), "blocked_address"),
    "/redirect-idn-nowhere": "dns",
    "/403": "http_403",
    "/404": "http_404",
    "/429": "http_429",
    "/503": "http_503",
    **dict.fromkeys(("/empty", "/204"), "empty_body"),
    **dict.fromkeys(
        ("/206", "/too-short", "/chunks-cut", "/gzip-cut", "/reset-mid-body", "/reset-to-the-end"), "incomplete_body"
    ),
    **dict.fromkeys(("/gzip-bomb", "/endless-body", "/endless-chunks", "/claims-much"), "too_large"),
    **dict.fromkeys(
        ("/endless-header-line", "/endless-header-lines", "/garbage", "/bad-length", "/closed-mid-header"),
        "bad_response",
    ),
    **dict.fromkeys(
        ("/chunks-bad", "/chunks-bad-later", "/brotli", "/gzip-that-is-none", "/redirect-nowhere", "/redirect-broken"),
        "bad_response",
    ),
    **dict.fromkeys(("/reset", "/closed"), "connection"),
    **dict.fromkeys(("/redirect-self", "/redirect-on"), "too_many_redirects"),
    **dict.fromkeys(
        ("/redirect-metadata", "/redirect-decimal", "/redirect-mapped", "/redirect-localhost"), "blocked_address"
    ),
    **dict.fromkeys(("/redirect-file", "/redirect-data"), "blocked_scheme"),
}
SLOW = ("/slow-header", "/slow-body", "/silent", "/endless-continue", "/chunk-extension-bomb")

SILENT = {"robots": False, "opt_outs": []}  # sites are not asked for their rules, so that every request is a test's own


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """On 127.0.0.2, the one address that may be dialled: 127.0.0.1 is as private as any other."""
    with HostileServer("127.0.0.2") as running:
        yield running


def config(server: HostileServer, **settings: object) -> FetchConfig:
    known = {
        "connect_to": server.connect_to,
        "allow_addresses": ["127.0.0.2/32"],
        "deadline_s": 60,
        "max_bytes": 2_000_000,
    }
    known |= {"host_rate": 10_000, "host_connections": 64, "breaker_faults": 1000}
    return FetchConfig.model_validate({**known, **settings})


def fetch(server: HostileServer, *urls: str, **settings: object) -> list[Answer]:
    """Return the answers in the order of the URLs; a path alone is one of the server's."""
    full = [server.url(url) if url.startswith("/") else url for url in urls]
    requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(full)]
    answers = sorted(fetch_all(requests, config(server, **settings)), key=lambda answer: answer.uid)
    assert [answer.uid for answer in answers] == [request.uid for request in requests]
    assert all((answer.reason is None) == (answer.body is not None) for answer in answers)
    return answers


def test_every_kind_of_answer_has_its_reason(server: HostileServer) -> None:
    answers = fetch(server, *EXPECTED)
    assert {path: answer.reason for path, answer in zip(EXPECTED, answers, strict=True)} == EXPECTED
    assert set(server.behaviours) == {*EXPECTED, *SLOW}, "a behaviour of the server is not tested"


def test_bodies_statuses_and_last_urls(server: HostileServer) -> None:
    paths = (
        "/good",
        "/good-chunked",
        "/good-to-the-end",
        "/gzip",
        "/deflate",
        "/deflate-raw",
        "/mislabelled-coding",
        "/redirect-good",
        "/404",
        "/redirect-metadata",
    )
    answers = fetch(server, *paths)
    assert [answer.body for answer in answers] == [GOOD] * 8 + [None, None]
    assert [answer.status for answer in answers] == [200] * 8 + [404, 302]
    assert answers[7].final_url == "http://hostile.example/good?from%20redirect"
    assert answers[9].final_url == "http://169.254.169.254/latest/meta-data/"
    assert "169.254.169.254" in answers[9].detail


def test_slow_answers_end_at_the_one_deadline(server: HostileServer) -> None:
    answers = fetch(server, *SLOW, *SLOW, "/good", deadline_s=1)
    assert [answer.reason for answer in answers] == ["timeout"] * 10 + [None]


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


def test_a_redirect_to_loopback_through_a_name() -> None:
    with HostileServer("127.0.0.1") as private, HostileServer("127.0.0.2") as public:
        public.behaviours["/to-name"] = lambda x: x.answer(b"", "302 Found", "Location: http://inside.example/good")
        table = {**public.connect_to, "inside.example": f"127.0.0.1:{private.port}"}
        assert [answer.reason for answer in fetch(public, "/to-name", connect_to=table)] == ["blocked_address"]
        assert private.requests == []


def test_a_resolver_that_changes_its_mind_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: names are filtered when they are looked up, yet the socket is judged again when it is dialled."""
    from aiohttp.abc import ResolveResult

    from filters.fetch.connector import Resolver

    async def lie(self: Resolver, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=private.port, family=2, proto=6, flags=0)]

    monkeypatch.setattr(Resolver, "resolve", lie)
    with HostileServer("127.0.0.1") as private:
        assert [answer.reason for answer in fetch(private, "http://rebinding.example/good", connect_to={})] == [
            "blocked_address"
        ]
        assert private.requests == []


def test_a_name_with_one_good_address_is_dialled_there(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from filters.fetch import connector

    def both(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(connector.socket, "getaddrinfo", both)
    answers = fetch(server, f"http://both.example:{server.port}/good", connect_to={})
    assert [answer.reason for answer in answers] == [None]


def test_names_that_do_not_resolve(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from filters.fetch import connector

    def none(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(connector.socket, "getaddrinfo", none)
    assert [answer.reason for answer in fetch(server, "http://gone.example/x", connect_to={})] == ["dns"]


def test_nothing_listens(server: HostileServer) -> None:
    with HostileServer("127.0.0.2") as gone:
        port = gone.port
    answers = fetch(server, "http://closed.example/", connect_to={"closed.example": f"127.0.0.2:{port}"})
    assert [answer.reason for answer in answers] == ["connection"]


def _certificate(folder: Path) -> ssl.SSLContext:
    """Return a server context with a self-signed certificate for tls.example, made here and now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tls.example")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    certificate = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("tls.example")]), critical=False
    ).sign(key, hashes.SHA256())
    file = folder / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_tls_faults(server: HostileServer, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    with HostileServer("127.0.0.2", tls=_certificate(tmp_path)) as secure:
        answers = fetch(server, "https://tls.example/good", connect_to={"tls.example": f"127.0.0.2:{secure.port}"})
        assert [answer.reason for answer in answers] == ["tls"]  # nobody vouches for it
        assert "self-signed" in answers[0].detail
        assert secure.requests == []
    with HostileServer("127.0.0.2", greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as babbler:
        answers = fetch(server, "https://plain.example/", connect_to={"plain.example": f"127.0.0.2:{babbler.port}"})
        assert [answer.reason for answer in answers] == ["tls"]


@pytest.mark.parametrize("greeting", ["silent", "drip"])
def test_a_handshake_that_never_ends_is_a_timeout(greeting: str) -> None:
    """The server accepts and says nothing, or a TLS record a byte at a time: the one deadline covers that too."""

    def hold(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while not done.wait(0.05):
                sock.send(b"\x16" if greeting == "drip" else b"")

    done = threading.Event()
    with socket.create_server(("127.0.0.2", 0)) as listener:
        thread = threading.Thread(target=lambda: [hold(listener.accept()[0])], daemon=True)
        thread.start()
        table = {"tls.example": f"127.0.0.2:{listener.getsockname()[1]}"}
        settings = FetchConfig(connect_to=table, allow_addresses=["127.0.0.2/32"], deadline_s=0.7, **SILENT)
        (answer,) = fetch_all([Request(b"", "https://tls.example/")], settings)
        done.set()
        thread.join(5)
    assert answer.reason in ("timeout", "tls")
    assert answer.reason == "timeout" or greeting == "drip"


def test_what_is_sent(server: HostileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cookies, no proxies or .netrc from the environment, no passwords out of URLs; identity asked for, and who
    asks."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine hostile.example login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.2:9")
    first, second = fetch(
        server,
        "/sets-cookie",
        "http://user:password@hostile.example/echo#part",
        user_agent="tessera-test (me@example.org)",
    )
    for answer in (first, second):
        assert answer.body is not None
        head = answer.body.decode().lower()
        assert head.startswith("get /echo http/1.1\r\n")
        assert "user-agent: tessera-test (me@example.org)" in head
        assert "accept-encoding: identity" in head
        assert "cookie" not in head
        assert "authorization" not in head


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


def test_redirect_cap(server: HostileServer) -> None:
    assert [answer.reason for answer in fetch(server, "/redirect-good", max_redirects=0)] == ["too_many_redirects"]
    assert [answer.reason for answer in fetch(server, "/redirect-good", max_redirects=1)] == [None]


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


def test_a_full_disk_is_no_fault_of_the_url(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(self: Body, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Body, "feed", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, "/good")


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


def test_a_body_larger_than_memory_takes_comes_whole(server: HostileServer) -> None:
    large = bytes(range(256)) * 6000  # 1.5 MB: more than the 1 MiB that stays in memory
    with HostileServer("127.0.0.2", {"/large": lambda x: x.answer(large)}) as other:
        assert fetch(other, "/large")[0].body == large
