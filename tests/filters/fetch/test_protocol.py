"""filters/fetch/protocol.py: what browsers and img2dataset take over the wire, against raw sockets."""

import gzip
import random
import socket
import threading
import time
import zlib
from contextlib import suppress

import brotli
import pytest
import zstandard

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Request
from filters.fetch.protocol import INTERIM, SWITCHING
from manifests.reasons import is_known
from tests.support.fetching import SILENT, fetch
from tests.support.hostile_server import GOOD, HostileServer

SIZE = len(GOOD)
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % SIZE
CHUNKS = b"%x\r\n%s\r\n" % (SIZE, GOOD)
PART = b"HTTP/1.1 206 Partial Content\r\n"


def coded(name: bytes, body: bytes) -> bytes:
    return OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (name, len(body), body)


TAKEN = {
    "one length twice in a line": OK + b"Content-Length: %d, %d\r\n\r\n" % (SIZE, SIZE) + GOOD,
    "one length in two lines": OK + LENGTH + LENGTH + b"\r\n" + GOOD,
    "a line without a colon": OK + b"no colon here\r\n" + LENGTH + b"\r\n" + GOOD,
    "a blank name": OK + b": nothing\r\n" + LENGTH + b"\r\n" + GOOD,
    "a name with a blank": OK + b"X Y: z\r\n" + LENGTH + b"\r\n" + GOOD,
    "a name that is not ASCII": OK + b"\xc3\xa9: z\r\n" + LENGTH + b"\r\n" + GOOD,
    "a value that is not ASCII": OK + b"X: \xe9\xff\r\n" + LENGTH + b"\r\n" + GOOD,
    "control characters in a value": OK + b"X: a\x01\x7f\r\n" + LENGTH + b"\r\n" + GOOD,
    "a folded line": OK + b"X: a\r\n b\r\n" + LENGTH + b"\r\n" + GOOD,
    "a folded first line": OK + b" X: a\r\n" + LENGTH + b"\r\n" + GOOD,
    "line feeds alone": OK.replace(b"\r", b"") + LENGTH.replace(b"\r", b"") + b"\n" + GOOD,
    "a blank before the colon": OK + LENGTH.replace(b":", b" :") + b"\r\n" + GOOD,
    "blanks behind the length": OK + LENGTH.replace(b"\r", b" \t\r") + b"\r\n" + GOOD,
    "an empty length": OK + b"Content-Length:\r\n\r\n" + GOOD,
    "no reason phrase": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + GOOD,
    "a reason that is not ASCII": b"HTTP/1.1 200 \xe9\r\n" + LENGTH + b"\r\n" + GOOD,
    "blank lines first": b"\r\n\r\n" + OK + LENGTH + b"\r\n" + GOOD,
    "HTTP/1.0 without a length": b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
    "an interim answer with junk": b"HTTP/1.1 103 Hints\r\njunk\r\n\r\n" + OK + b"junk\r\n" + LENGTH + b"\r\n" + GOOD,
    "length and chunks": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + CHUNKS + b"0\r\n\r\n",
    "transfer identity": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + GOOD,
    "junk behind a chunk's size": OK
    + b"Transfer-Encoding: chunked\r\n\r\n%x ; =?junk\r\n%s\r\n0;\r\n\r\n" % (SIZE, GOOD),
    "zeros before a chunk's size": OK + b"Transfer-Encoding: chunked\r\n\r\n0000%x\r\n%s\r\n000\r\n\r\n" % (SIZE, GOOD),
    "no last line of the chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n",
    "no line end behind the last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0",
    "chunks with line feeds alone": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS.replace(b"\r", b"") + b"0\n\n",
    "206 of all bytes": PART + b"Content-Range: bytes 0-%d/%d\r\n" % (SIZE - 1, SIZE) + LENGTH + b"\r\n" + GOOD,
    "206 of an unknown number": PART + b"Content-Range: bytes 0-%d/*\r\n" % (SIZE - 1) + LENGTH + b"\r\n" + GOOD,
    "206 without a range": PART + LENGTH + b"\r\n" + GOOD,
    "206 with two blanks": PART + b"Content-Range: bytes  0-%d/%d\r\n" % (SIZE - 1, SIZE) + LENGTH + b"\r\n" + GOOD,
    "206 with a sign and blanks": PART + b"Content-Range: bytes = 0-%d/*\r\n" % (SIZE - 1) + LENGTH + b"\r\n" + GOOD,
    "a note behind the length": OK + LENGTH + b"\r\n" + GOOD + b"<!-- cached -->",
    "an answer behind the length": OK + LENGTH + b"\r\n" + GOOD + OK + b"\r\n",
    "a note behind the last answer": OK + LENGTH + b"Connection: close\r\n\r\n" + GOOD + b"<!-- cached -->\0",
    "a note behind the length twice named": OK + LENGTH * 2 + b"\r\n" + GOOD + b"<!-- cached -->",
    "a note behind the chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n<!-- cached -->",
    "gzip": coded(b"gzip", gzip.compress(GOOD)),
    "x-gzip": coded(b"X-Gzip", gzip.compress(GOOD)),
    "deflate": coded(b"deflate", zlib.compress(GOOD)),
    "br": coded(b"br", brotli.compress(GOOD)),
    "zstd": coded(b"zstd", zstandard.compress(GOOD)),
    "gzip in br": coded(b"gzip, br", brotli.compress(gzip.compress(GOOD))),
    "identity in a list": coded(b"identity, gzip", gzip.compress(GOOD)),
    "none": coded(b"none", GOOD),
    "a coding that is none": coded(b"gzip", GOOD),
    "br that is none": coded(b"br", GOOD),
}
REFUSED = {
    "two lengths in a line": (OK + b"Content-Length: %d, 5\r\n\r\n" % SIZE + GOOD, "bad_response"),
    "two lengths in two lines": (OK + LENGTH + b"Content-Length: 5\r\n\r\n" + GOOD, "bad_response"),
    "two lengths, one with a blank": (OK + LENGTH + b"Content-Length : 5\r\n\r\n" + GOOD, "bad_response"),
    "a negative length": (OK + b"Content-Length: -5\r\n\r\n" + GOOD, "bad_response"),
    "a length with a sign": (OK + b"Content-Length: +5\r\n\r\n" + GOOD, "bad_response"),
    "a length that is none": (OK + b"Content-Length: much\r\n\r\n" + GOOD, "bad_response"),
    "a NUL": (OK + b"X: \0\r\n" + LENGTH + b"\r\n" + GOOD, "bad_response"),
    "another transfer coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, "bad_response"),
    "compress": (coded(b"compress", GOOD), "bad_response"),
    "four codings": (coded(b"gzip, gzip, gzip, gzip", GOOD), "bad_response"),
    "a broken br": (coded(b"br", b"\x8b" + bytes(100)), "bad_response"),
    "a broken zstd": (coded(b"zstd", b"no frame"), "bad_response"),
    "a broken gzip": (coded(b"gzip", b"\x1f\x8b\x08 no stream at all"), "bad_response"),
    "a br that is cut": (coded(b"br", brotli.compress(GOOD)[:-3]), "incomplete_body"),
    "a zstd that is cut": (coded(b"zstd", zstandard.compress(GOOD)[:-3]), "incomplete_body"),
    "chunks that are cut": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, "incomplete_body"),
    "a chunk that ends as a last one": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\n0\r\n" % (SIZE + 5, GOOD),
        "incomplete_body",
    ),
    "206 of a part": (
        PART + b"Content-Range: bytes 0-%d/%d\r\n" % (SIZE - 1, SIZE + 1) + LENGTH + b"\r\n" + GOOD,
        "incomplete_body",
    ),
    "206 of the end": (
        PART + b"Content-Range: bytes 1-%d/%d\r\n" % (SIZE, SIZE + 1) + LENGTH + b"\r\n" + GOOD,
        "incomplete_body",
    ),
    "206 of more than came": (
        PART + b"Content-Range: bytes 0-%d/%d\r\n" % (SIZE, SIZE + 1) + LENGTH + b"\r\n" + GOOD,
        "incomplete_body",
    ),
    "206 of several parts": (PART + b"Content-Range: multipart\r\n" + LENGTH + b"\r\n" + GOOD, "incomplete_body"),
    "a br bomb": (coded(b"br", brotli.compress(bytes(9_000_000), quality=5)), "too_large"),
    "a zstd bomb": (coded(b"zstd", zstandard.compress(bytes(100_000_000))), "too_large"),
    "a bomb in a bomb": (coded(b"gzip, gzip", gzip.compress(gzip.compress(bytes(20_000_000), 6))), "too_large"),
}


def told(answers: dict[str, bytes], pieces: int = 1 << 30) -> dict[str, tuple[str | None, bytes | None]]:
    """Return case -> (reason, body), each answer sent in pieces of so many bytes."""

    def send(data: bytes) -> object:
        def behave(x) -> None:  # type: ignore[no-untyped-def]
            for at in range(0, len(data), pieces):
                x.send(data[at : at + pieces])
                if pieces < len(data):
                    time.sleep(0.001)

        return behave

    paths = {f"/{number}": data for number, data in enumerate(answers.values())}
    with HostileServer("127.0.0.2", {path: send(data) for path, data in paths.items()}) as server:  # type: ignore[misc]
        got = fetch(server, *paths, **SILENT)
    return dict(zip(answers, ((answer.reason, answer.body) for answer in got), strict=True))


def test_what_browsers_take_is_taken_whole() -> None:
    assert told(TAKEN) == dict.fromkeys(TAKEN, (None, GOOD))


def test_what_browsers_take_is_taken_in_small_pieces() -> None:
    assert told(TAKEN, 7) == dict.fromkeys(TAKEN, (None, GOOD))


def test_what_is_refused_keeps_its_reason() -> None:
    assert told({name: data for name, (data, _) in REFUSED.items()}) == {
        name: (reason, None) for name, (_, reason) in REFUSED.items()
    }


@pytest.mark.parametrize(
    ("junk", "behind", "connections"),
    [
        (b"junk\r\n", b"", 1),
        (b"Transfer-Encoding: chunked\r\n", b"", 2),
        (b"", b"<!-- cached -->", 2),
        (b"", b"\r\n", 2),
        (b"Transfer-Encoding: chunked\r\n", b"<!-- cached -->", 2),
    ],
    ids=["junk", "two framings", "a note behind", "a line end behind", "a note behind chunks"],
)
def test_a_connection_is_used_again_only_where_the_end_of_the_body_was_clear(
    junk: bytes, behind: bytes, connections: int
) -> None:
    """Two answers under a header with junk come through one connection; one with a length and chunks ends it."""
    accepted = 0
    body = (CHUNKS + b"0\r\n\r\n" if b"chunked" in junk else GOOD) + behind

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while b"\r\n\r\n" in sock.recv(65536):
                sock.sendall(OK + junk + LENGTH + b"\r\n" + body)

    def accept() -> None:
        nonlocal accepted
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                accepted += 1
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.2", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        table = {"a.example": f"127.0.0.2:{listener.getsockname()[1]}"}
        settings = FetchConfig(
            connect_to=table, allow_addresses=["127.0.0.2/32"], host_connections=1, host_rate=1000, **SILENT
        )
        requests = [Request(bytes([number]), f"http://a.example/{number}") for number in range(2)]
        answers = list(fetch_all(requests, settings))
        listener.shutdown(socket.SHUT_RDWR)
    assert [answer.body for answer in answers] == [GOOD, GOOD]
    assert accepted == connections


def test_a_header_beyond_what_is_repaired_is_left_to_the_parser() -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(80))
    assert told({"long": OK + lines + LENGTH + b"\r\n" + GOOD}) == {"long": (None, GOOD)}
    assert told({"long": OK + b"junk\r\n" + lines + LENGTH + b"\r\n" + GOOD}) == {"long": ("bad_response", None)}


def test_only_an_answer_that_switches_protocols_is_the_last_of_the_interim_ones() -> None:
    """After 103 comes the answer; after 101 nothing that is HTTP, so that it is the answer."""
    last = OK + LENGTH + b"\r\n" + GOOD
    answers = {str(code): b"HTTP/1.1 %d Word\r\njunk\r\n\r\n" % code + last for code in (100, 102, 103, 199)}
    assert told(answers) == dict.fromkeys(answers, (None, GOOD))
    assert told({"101": b"HTTP/1.1 101 Word\r\n\r\n" + last}) == {"101": ("http_101", None)}
    assert (SWITCHING in INTERIM, len(INTERIM)) == (True, 100)


STATUSES = {"000": "bad_response", "001": "bad_response", "099": "bad_response", "2000": "bad_response"} | {
    code: f"http_{code}" for code in ("304", "404", "599", "600", "700", "999")
}


@pytest.mark.parametrize("long", [b"", b"X: %s\r\n" % (b"a" * 8000) * 9], ids=["repaired", "left to the parser"])
def test_a_status_that_http_does_not_know(long: bytes) -> None:
    """Below 100 it is no answer, in a header that is repaired and in one too long for that."""
    answers = {code: b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n%s\r\n" % (code.encode(), long) for code in STATUSES}
    assert told(answers) == {code: (reason, None) for code, reason in STATUSES.items()}


def test_robots_txt_of_a_status_that_http_does_not_know() -> None:
    """Its picture is dropped for a reason of the table."""
    with HostileServer("127.0.0.2", {"/robots.txt": lambda x: x.send(b"HTTP/1.1 000 X\r\n\r\n")}) as server:
        (answer,) = fetch(server, "/good")
    assert answer.reason == "bad_response"


def test_no_answer_of_a_server_makes_an_unknown_reason() -> None:
    """Whole answers with up to three random changes of bytes, and random status lines."""
    chance = random.Random(5)
    sent = {}
    for number in range(150):
        data = bytearray(chance.choice([*TAKEN.values(), *(data for data, _ in REFUSED.values() if len(data) < 500)]))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(min(len(data), 80))] = chance.choice(b"0123456789 \r\n:;,\0\xff")
        if number % 3 == 0:
            data[:15] = b"HTTP/1.1 %03d OK" % chance.randrange(1000)
        sent[str(number)] = bytes(data)
    reasons = {reason for reason, _ in told(sent).values() if reason is not None}
    assert {"bad_response"} < reasons
    assert all(map(is_known, reasons))
