"""Serve every kind of bad answer on 127.0.0.1, one path for each, straight from sockets; other tests may use it too."""

import functools
import gzip
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

GOOD = b"\xff\xd8\xff good enough for a client that does not decode"
HTML = b"<!DOCTYPE html><html><body>Not found, but the status says 200.</body></html>"
Behaviour = Callable[["Exchange"], None]


class Exchange:
    """One request: its target, header lines, and the socket to answer on."""

    def __init__(self, server: "HostileServer", sock: socket.socket, head: bytes) -> None:
        self.server, self.sock, self.head = server, sock, head
        line, *fields = head.decode("latin-1").split("\r\n")
        self.target = line.split(" ")[1] if line.count(" ") >= 2 else ""
        self.fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> None:
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
            *headers,
        ]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def drip(self, head: bytes, piece: bytes) -> None:
        """Send a head, then a piece every 20 ms until the client goes away or the server stops."""
        self.send(head)
        while not self.server.stopping.wait(0.02):
            self.send(piece)

    def pour(self, head: bytes, piece: bytes) -> None:
        """Send a head, then pieces as fast as the client takes them, 2 GiB at most."""
        self.send(head)
        for _ in range((2 << 30) // len(piece)):
            if self.server.stopping.is_set():
                return
            self.send(piece)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
CHUNKED = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@functools.cache
def gzip_bomb(size: int) -> bytes:
    """Return `size` zero bytes as gzip: about a thousandth of it."""
    return gzip.compress(bytes(size), 9, mtime=0)


def _redirect(location: str, status: str = "302 Found") -> Behaviour:
    return lambda x: x.answer(b"", status, f"Location: {location}")


def _endless_redirects(x: Exchange) -> None:
    number = int(x.target.partition("=")[2] or 0) + 1
    x.answer(b"", "302 Found", f"Location: /redirect-on?n={number}")


def _reset_mid_body(x: Exchange) -> None:
    x.send(OK_HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(1000))
    time.sleep(0.05)  # lets the client see the header first; what it gives is the same either way
    x.reset()


def _reset_to_the_end(x: Exchange) -> None:
    x.send(OK_HEAD + b"Connection: close\r\n\r\n" + GOOD)
    time.sleep(0.05)
    x.reset()


def _chunks_bad_later(x: Exchange) -> None:
    x.send(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunked(GOOD))
    time.sleep(0.1)
    x.send(b"zz\r\nrubbish")


def _chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


BEHAVIOURS: dict[str, Behaviour] = {
    "/good": lambda x: x.answer(GOOD),
    "/good-chunked": lambda x: x.send(
        OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunked(GOOD[:10], GOOD[10:]) + b"0\r\n\r\n"
    ),
    "/good-to-the-end": lambda x: x.send(OK_HEAD + b"Connection: close\r\n\r\n" + GOOD),
    "/gzip": lambda x: x.answer(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"),
    "/deflate": lambda x: x.answer(zlib.compress(GOOD), "200 OK", "Content-Encoding: deflate"),
    "/deflate-raw": lambda x: x.answer(zlib.compress(GOOD)[2:-4], "200 OK", "Content-Encoding: deflate"),
    "/mislabelled-coding": lambda x: x.answer(GOOD, "200 OK", "Content-Encoding: UTF-8"),
    "/brotli": lambda x: x.answer(GOOD, "200 OK", "Content-Encoding: br"),
    "/gzip-that-is-none": lambda x: x.answer(GOOD, "200 OK", "Content-Encoding: gzip"),
    "/gzip-cut": lambda x: x.answer(gzip.compress(GOOD)[:-12], "200 OK", "Content-Encoding: gzip"),
    "/gzip-bomb": lambda x: x.answer(gzip_bomb(256 << 20), "200 OK", "Content-Encoding: gzip"),
    "/html": lambda x: x.answer(HTML, "200 OK", "Content-Type: image/jpeg"),
    "/empty": lambda x: x.answer(b""),
    "/204": lambda x: x.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/206": lambda x: x.answer(GOOD, "206 Partial Content"),
    "/403": lambda x: x.answer(HTML, "403 Forbidden"),
    "/404": lambda x: x.answer(HTML, "404 Not Found"),
    "/429": lambda x: x.answer(b"", "429 Too Many Requests", "Retry-After: 3600"),
    "/503": lambda x: x.answer(b"", "503 Service Unavailable"),
    "/slow-header": lambda x: x.drip(OK_HEAD + b"X-Slow: ", b"a"),
    "/slow-body": lambda x: x.drip(OK_HEAD + b"Content-Length: 1000000\r\n\r\n", b"a"),
    "/silent": lambda x: x.drip(b"", b""),
    "/endless-header-line": lambda x: x.pour(OK_HEAD + b"X-Long: ", b"a" * 65536),
    "/endless-header-lines": lambda x: x.pour(OK_HEAD, b"X-Many: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1000),
    "/endless-body": lambda x: x.pour(OK_HEAD + b"Connection: close\r\n\r\n", bytes(65536)),
    "/endless-chunks": lambda x: x.pour(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", _chunked(bytes(65536))),
    "/endless-continue": lambda x: x.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/claims-much": lambda x: x.answer(b"", length=10**12),
    "/too-short": lambda x: x.answer(GOOD, length=len(GOOD) + 1),
    "/chunks-cut": lambda x: x.send(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunked(GOOD)),
    "/chunks-bad": lambda x: x.send(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nrubbish"),
    "/chunks-bad-later": _chunks_bad_later,
    "/reset": lambda x: x.reset(),
    "/reset-to-the-end": _reset_to_the_end,
    "/reset-mid-body": _reset_mid_body,
    "/garbage": lambda x: x.send(b"\x00\x01\x02 SSH-2.0-whatever\r\n\r\n" * 10),
    "/closed": lambda x: None,
    "/closed-mid-header": lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-"),
    "/bad-length": lambda x: x.send(OK_HEAD + b"Content-Length: minus one\r\n\r\n"),
    "/redirect-good": _redirect("/good?from redirect", "301 Moved Permanently"),
    "/redirect-utf8": lambda x: x.send("HTTP/1.1 302 Found\r\nLocation: /good?é\r\nContent-Length: 0\r\n\r\n".encode()),
    "/redirect-self": _redirect("/redirect-self"),
    "/redirect-on": _endless_redirects,
    "/redirect-nowhere": lambda x: x.answer(b"", "302 Found"),
    "/redirect-broken": _redirect("http://[broken/"),
    "/redirect-metadata": _redirect("http://169.254.169.254/latest/meta-data/"),
    "/redirect-decimal": _redirect("http://2130706433/"),
    "/redirect-mapped": _redirect("http://[::ffff:10.0.0.1]/"),
    "/redirect-localhost": _redirect("http://localhost/"),
    "/redirect-file": _redirect("file:///etc/passwd"),
    "/redirect-data": _redirect("data:image/png;base64,AAAA"),
    "/good-early-hints": lambda x: x.send(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK_HEAD + b"\r\n" + GOOD
    ),
    "/good-http10": lambda x: x.send(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD),
    "/good-chunk-extension": lambda x: x.send(CHUNKED + b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)),
    "/good-trailers": lambda x: x.send(CHUNKED + _chunked(GOOD) + b"0\r\nX-Sum: 1\r\n\r\n"),
    "/http09": lambda x: x.send(GOOD),
    "/chunk-extension-bomb": lambda x: x.pour(CHUNKED + b"5;", b"a" * 65536),
    "/chunk-size-bomb": lambda x: x.send(CHUNKED + b"f" * 60 + b"\r\n"),
    "/chunk-size-negative": lambda x: x.send(CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n"),
    "/endless-tiny-chunks": lambda x: x.pour(CHUNKED, b"1\r\na\r\n" * 10_000),
    "/endless-trailers": lambda x: x.pour(
        CHUNKED + _chunked(GOOD) + b"0\r\n", b"X-Many: aaaaaaaaaaaaaaaaaaaaaa\r\n" * 1000
    ),
    "/zstd": lambda x: x.answer(GOOD, "200 OK", "Content-Encoding: zstd"),
    "/gzip-twice": lambda x: x.answer(gzip.compress(gzip.compress(GOOD)), "200 OK", "Content-Encoding: gzip, gzip"),
    "/gzip-two-headers": lambda x: x.answer(
        gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip", "Content-Encoding: gzip"
    ),
    "/two-lengths": lambda x: x.answer(GOOD, "200 OK", "Content-Length: 5"),
    "/length-and-chunks": lambda x: x.send(CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n" + _chunked(GOOD) + b"0\r\n\r\n"),
    "/length-plus": lambda x: x.send(OK_HEAD + b"Content-Length: +5\r\n\r\nabcde"),
    "/length-absurd": lambda x: x.send(OK_HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n"),
    "/nul-in-header": lambda x: x.send(OK_HEAD + b"X-Nul: a\0b\r\nContent-Length: 5\r\n\r\nabcde"),
    "/space-before-colon": lambda x: x.send(OK_HEAD + b"Content-Length : 5\r\n\r\nabcde"),
    "/status-99": lambda x: x.answer(GOOD, "99 Low"),
    "/status-1000": lambda x: x.answer(GOOD, "1000 High"),
    "/status-999": lambda x: x.answer(GOOD, "999 Denied"),
    "/300": lambda x: x.answer(GOOD, "300 Multiple Choices", "Location: /good"),
    "/304": lambda x: x.answer(b"", "304 Not Modified"),
    "/101": lambda x: x.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + GOOD
    ),
    "/500": lambda x: x.answer(HTML, "500 Internal Server Error"),
    "/429-no-word": lambda x: x.answer(b"", "429 Too Many Requests"),
    "/redirect-307": _redirect("/good", "307 Temporary Redirect"),
    "/redirect-userinfo": _redirect("http://user:secret@hostile.example/echo"),
    "/redirect-ftp": _redirect("ftp://hostile.example/good"),
    "/redirect-javascript": _redirect("javascript:alert(1)"),
    "/redirect-port-0": _redirect("http://hostile.example:0/"),
    "/redirect-port-65536": _redirect("http://hostile.example:65536/"),
    "/redirect-nat64": _redirect("http://[64:ff9b::a9fe:a9fe]/"),
    "/redirect-6to4": _redirect("http://[2002:a9fe:a9fe::1]/"),
    "/redirect-aws6": _redirect("http://[fd00:ec2::254]/"),
    "/redirect-alibaba": _redirect("http://100.100.100.200/"),
    "/redirect-zero": _redirect("http://0/"),
    "/redirect-octal": _redirect("http://0251.0376.0251.0376/"),
    "/redirect-long": _redirect("/good?" + "a" * 16_300),
    "/redirect-idn-nowhere": lambda x: x.send(
        "HTTP/1.1 302 Found\r\nLocation: http://bücher.invalid/\r\nContent-Length: 0\r\n\r\n".encode()
    ),
    "/redirect-two-locations": lambda x: x.answer(b"", "302 Found", "Location: /good", "Location: /404"),
    "/noai": lambda x: x.answer(GOOD, "200 OK", "X-Robots-Tag: noai, noimageai"),
    "/noai-for-us": lambda x: x.answer(GOOD, "200 OK", "X-Robots-Tag: otherbot: all", "x-robots-tag: Tessera: NOAI"),
    "/noai-for-others": lambda x: x.answer(GOOD, "200 OK", "X-Robots-Tag: otherbot: noindex, noai"),
    "/noai-redirect": lambda x: x.answer(b"", "302 Found", "X-Robots-Tag: noindex", "Location: /good"),
    "/tdm-reserved": lambda x: x.answer(
        GOOD, "200 OK", "tdm-reservation: 1", "tdm-policy: http://hostile.example/policy"
    ),
    "/tdm-free": lambda x: x.answer(GOOD, "200 OK", "TDM-Reservation: 0"),
    "/sets-cookie": lambda x: x.answer(b"", "302 Found", "Location: /echo", "Set-Cookie: seen=1; Path=/"),
    "/echo": lambda x: x.answer(x.head),
}


class HostileServer:
    """A server on 127.0.0.1 (or another loopback address); use it with `with`. `requests` lists (host header, target)
    as they came.

    With a `greeting` it says that to whoever connects, and hangs up.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        behaviours: dict[str, Behaviour] | None = None,
        tls: ssl.SSLContext | None = None,
        greeting: bytes = b"",
    ) -> None:
        self.greeting = greeting
        self.behaviours = {**BEHAVIOURS, **(behaviours or {})}
        self.tls = tls
        self.stopping = threading.Event()
        self.requests: list[tuple[str, str]] = []
        self.listener = socket.create_server((address, 0), backlog=256)
        self.listener.settimeout(0.2)
        self.address, self.port = self.listener.getsockname()[:2]
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> "HostileServer":
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # what waits in accept wakes now, not at its timeout
        self.accepting.join()
        self.listener.close()
        for thread in self.threads:
            thread.join(5)

    def url(self, path: str, host: str = "hostile.example") -> str:
        """Return the URL of a behaviour under a made-up host that `connect_to` maps here."""
        return f"http://{host}{path}"

    @property
    def connect_to(self) -> dict[str, str]:
        """Return the map that leads `hostile.example` here."""
        return {"hostile.example": f"{self.address}:{self.port}"}

    def _accept(self) -> None:
        while not self.stopping.is_set():
            with suppress(OSError):  # its timeout, or it is shut down
                sock, _ = self.listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(5)
            if self.greeting:
                sock.sendall(self.greeting)
                sock.recv(65536)  # unread bytes would turn the close into a reset
                return
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                block = sock.recv(65536)
                if not block:
                    return
                head += block
            exchange = Exchange(self, sock, head.partition(b"\r\n\r\n")[0])
            self.requests.append((exchange.fields.get("host", ""), exchange.target))
            behaviour = self.behaviours.get(exchange.target.partition("?")[0], BEHAVIOURS["/404"])
            behaviour(exchange)
