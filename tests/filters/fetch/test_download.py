"""One URL against a hostile server on loopback addresses: every kind of answer has its reason."""

import asyncio
import contextlib
import datetime
import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from filters.fetch.body import Body
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.download import Downloader, Outcome
from filters.fetch.hosts import FetchTask
from filters.fetch.messages import Request
from filters.fetch.politeness import HostQueues
from filters.fetch.sites import SiteCache
from tests.support.fetching import SILENT, config, fetch
from tests.support.hostile_server import GOOD, HostileServer

WHOLE = (
    "/good",
    "/good-chunked",
    "/good-to-the-end",
    "/gzip",
    "/deflate",
    "/deflate-raw",
    "/mislabelled-coding",
)
"""Paths whose body is GOOD, however it is sent."""
EXPECTED: dict[str, str | None] = {
    **dict.fromkeys((*WHOLE, "/html", "/echo")),
    **dict.fromkeys(("/redirect-good", "/redirect-utf8", "/sets-cookie")),
    **dict.fromkeys(
        ("/good-early-hints", "/good-http10", "/good-chunk-extension", "/good-trailers", "/gzip-two-headers")
    ),
    **dict.fromkeys(
        ("/redirect-307", "/redirect-userinfo", "/redirect-long", "/redirect-two-locations", "/space-before-colon")
    ),
    **dict.fromkeys(("/noai-for-others", "/tdm-free")),
    **dict.fromkeys(("/noai", "/noai-for-us", "/noai-redirect", "/tdm-reserved"), "opted_out"),
    **dict.fromkeys(("/206", "/brotli", "/gzip-that-is-none", "/gzip-twice", "/length-and-chunks", "/zstd")),
    **dict.fromkeys(("/http09", "/chunk-size-bomb", "/chunk-size-negative", "/endless-trailers"), "bad_response"),
    "/chunk-extension-bomb": "bad_response",
    **dict.fromkeys(("/two-lengths", "/length-plus", "/length-absurd", "/nul-in-header"), "bad_response"),
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
        ("/too-short", "/chunks-cut", "/gzip-cut", "/reset-mid-body", "/reset-to-the-end"), "incomplete_body"
    ),
    **dict.fromkeys(("/gzip-bomb", "/endless-body", "/endless-chunks", "/claims-much"), "too_large"),
    **dict.fromkeys(
        ("/endless-header-line", "/endless-header-lines", "/garbage", "/bad-length", "/closed-mid-header"),
        "bad_response",
    ),
    **dict.fromkeys(
        ("/chunks-bad", "/chunks-bad-later", "/redirect-nowhere", "/redirect-broken"),
        "bad_response",
    ),
    **dict.fromkeys(("/reset", "/closed"), "connection"),
    **dict.fromkeys(("/redirect-self", "/redirect-on"), "too_many_redirects"),
    **dict.fromkeys(
        ("/redirect-metadata", "/redirect-decimal", "/redirect-mapped", "/redirect-localhost"), "blocked_address"
    ),
    **dict.fromkeys(("/redirect-file", "/redirect-data"), "blocked_scheme"),
}
SLOW = ("/slow-header", "/slow-body", "/silent", "/endless-continue")


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """On 127.0.0.2, the one address that may be dialled: 127.0.0.1 is as private as any other."""
    with HostileServer("127.0.0.2") as running:
        yield running


def test_every_kind_of_answer_has_its_reason(server: HostileServer) -> None:
    answers = fetch(server, *EXPECTED)
    assert {path: answer.reason for path, answer in zip(EXPECTED, answers, strict=True)} == EXPECTED
    assert set(server.behaviours) == {*EXPECTED, *SLOW}, "a behaviour of the server is not tested"


def test_bodies_statuses_and_last_urls(server: HostileServer) -> None:
    paths = (*WHOLE, "/redirect-good", "/404", "/redirect-metadata")
    answers = fetch(server, *paths)
    assert [answer.body for answer in answers] == [GOOD] * 8 + [None, None]
    assert [answer.status for answer in answers] == [200] * 8 + [404, 302]
    assert answers[7].final_url == "http://hostile.example/good?from%20redirect"
    assert answers[9].final_url == "http://169.254.169.254/latest/meta-data/"
    assert "169.254.169.254" in answers[9].detail


async def asked(settings: FetchConfig, job: FetchTask) -> Outcome:
    async with Downloader(settings, SiteCache(), HostQueues(settings)) as downloader:
        return await downloader.request(job)


def test_one_request_hands_its_redirect_back_and_counts_one_attempt(server: HostileServer) -> None:
    url = server.url("/redirect-good")
    job = FetchTask(Request(b"", url), url, url, 60.0, 0)
    outcome = asyncio.run(asked(config(server, **SILENT), job))
    assert (outcome.status, outcome.reason, outcome.body) == (301, None, None)
    assert outcome.location == "http://hostile.example/good?from%20redirect"
    assert (job.attempts, job.status, job.hops, job.url) == (1, 301, 0, url)
    job.hops = 2
    refused = asyncio.run(asked(config(server, **SILENT, max_redirects=2), job))
    assert (refused.reason, refused.location, job.attempts) == ("too_many_redirects", None, 1)
    assert refused.detail.startswith("more than 2, the last to /good?from")


def test_slow_answers_end_at_the_one_deadline(server: HostileServer) -> None:
    answers = fetch(server, *SLOW, *SLOW, "/good", deadline_s=1)
    assert [answer.reason for answer in answers] == ["timeout"] * 8 + [None]


def test_a_redirect_to_loopback_through_a_name() -> None:
    with HostileServer("127.0.0.1") as private, HostileServer("127.0.0.2") as public:
        public.behaviours["/to-name"] = lambda x: x.answer(b"", "302 Found", "Location: http://inside.example/good")
        table = {**public.connect_to, "inside.example": f"127.0.0.1:{private.port}"}
        assert [answer.reason for answer in fetch(public, "/to-name", connect_to=table)] == ["blocked_address"]
        assert private.requests == []


def test_names_that_do_not_resolve(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
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


def test_redirect_cap(server: HostileServer) -> None:
    assert [answer.reason for answer in fetch(server, "/redirect-good", max_redirects=0)] == ["too_many_redirects"]
    assert [answer.reason for answer in fetch(server, "/redirect-good", max_redirects=1)] == [None]


def test_a_full_disk_is_no_fault_of_the_url(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Body, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Body, "feed", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, "/good")


def test_a_body_larger_than_memory_takes_comes_whole(server: HostileServer) -> None:
    large = bytes(range(256)) * 6000  # 1.5 MB: more than the 1 MiB that stays in memory
    with HostileServer("127.0.0.2", {"/large": lambda x: x.answer(large)}) as other:
        assert fetch(other, "/large")[0].body == large
