"""Play the web of the demo on 127.0.0.1: every made-up host by its Host header, misbehaviour included."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.demo.data import DemoData
from pipeline.demo.faults import DOMAIN, TOO_LARGE_BYTES, host

ADDRESS = "127.0.0.1"
CLOSED_PORT = 1
"""tcpmux: nothing listens there, so that a connection is refused."""
HEAD_BYTES = 16_384
TLS_HANDSHAKE = b"\x16"
IDLE_SECONDS = 30.0
"""The longest that any answer or silence lasts."""
TRICKLE_SECONDS = 0.2
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}
PRIVATE = {"router.jpg": "http://10.0.0.1/router.jpg", "metadata.jpg": "http://169.254.169.254/latest/metadata.jpg"}


@dataclass(frozen=True)
class Call:
    """One request: host without its port, path without a leading slash, and where the answer goes."""

    host: str
    path: str
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write bytes and wait until the other side takes them."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: str, body: bytes = b"", *headers: str, length: int | None = None) -> None:
        """Send a whole answer; `length` overrides the announced body length."""
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
            *headers,
        ]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@contextlib.contextmanager
def serve(data: DemoData) -> Iterator[int]:
    """Serve the demo's hosts in a thread while the block runs; yield the port. Closing cuts every open connection."""
    loop = asyncio.new_event_loop()
    started: list[socket.socket] = [socket.create_server((ADDRESS, 0), backlog=256)]
    port = int(started[0].getsockname()[1])
    stop = asyncio.Event()
    thread = threading.Thread(
        target=loop.run_until_complete, args=(_serving(started[0], data.www, stop),), name="demo-server", daemon=True
    )
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def connect_to(data: DemoData, port: int) -> dict[str, str]:
    """Return host -> address:port for every made-up host; `refused` goes to a closed port. Names under .invalid stay
    out."""
    refused = host("refused")
    return {name: f"{ADDRESS}:{CLOSED_PORT if name == refused else port}" for name in data.hosts}


async def _serving(listener: socket.socket, www: Path, stop: asyncio.Event) -> None:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends, the other side leaves or the server closes."""
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await _handle(reader, writer, www)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the other side left, or the server closes
        finally:
            tasks.discard(task) if task is not None else None
            writer.transport.abort() if stop.is_set() else writer.close()

    server = await asyncio.start_server(connected, sock=listener, limit=HEAD_BYTES)
    await stop.wait()
    server.close()
    open_now = list(tasks)
    for task in open_now:
        task.cancel()
    await asyncio.gather(*open_now, return_exceptions=True)


async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, www: Path) -> None:
    """Read one request's head and let its host answer."""
    first = await reader.readexactly(1)
    if first == TLS_HANDSHAKE:  # host `tls`: this server speaks plain HTTP only
        await Call("", "", writer).answer("400 Bad Request", b"plain HTTP only")
        return
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    name = headers.get("host", "").rsplit(":", 1)[0]
    call = Call(name, words[1].split("?")[0].lstrip("/") if len(words) == 3 else "", writer)
    if call.path == "robots.txt":
        await call.answer("404 Not Found")
        return
    behave = BEHAVIOURS.get(name.removesuffix(f".{DOMAIN}"))
    await (behave(call) if behave else _file(call, www))


async def _file(call: Call, www: Path) -> None:
    """Send a file of the host's folder; `moved-X` sends the client to host X, `short-body` promises more than it
    sends."""
    name = call.host.removesuffix(f".{DOMAIN}")
    if name.startswith("moved-"):
        await call.answer("302 Found", b"", f"Location: http://{host(name.removeprefix('moved-'))}/{call.path}")
        return
    parts = PurePosixPath(call.host, call.path).parts
    path = www.joinpath(*parts)
    if ".." in parts or not path.is_file():
        await call.answer("404 Not Found", b"no such picture")
        return
    body = path.read_bytes()
    more = 500 if name == "short-body" else 0
    await call.answer(
        "200 OK", body, f"Content-Type: {TYPES.get(path.suffix, 'application/octet-stream')}", length=len(body) + more
    )


async def _status(call: Call) -> None:
    code = call.host.split(".")[0].removeprefix("http-")
    await call.answer(f"{code} Refused", b"<html>not here</html>", "Content-Type: text/html")


async def _slow(call: Call) -> None:
    """Never finish: say nothing, or send a header or a body one byte at a time."""
    if call.path == "silent.jpg":
        await asyncio.sleep(IDLE_SECONDS)
    start = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nX-Padding: "
    if call.path == "trickle.jpg":
        start = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n\xff\xd8"
    await call.send(start)
    while True:
        await call.send(b"a")
        await asyncio.sleep(TRICKLE_SECONDS)


async def _reset(call: Call) -> None:
    """Cut the connection with a TCP reset instead of an answer."""
    raw = call.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call.writer.transport.abort()


async def _garbage(call: Call) -> None:
    await call.send(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(range(128, 256)) + b"\r\n\r\n")


async def _loop(call: Call) -> None:
    """Redirect without end: one path to itself, the other one step on each time."""
    step = call.path.removeprefix("step/").removesuffix(".jpg")
    target = f"/step/{int(step) + 1}.jpg" if step.isdigit() else f"/{call.path}"
    await call.answer("302 Found", b"", f"Location: {target}")


async def _private(call: Call) -> None:
    await call.answer("302 Found", b"", f"Location: {PRIVATE.get(call.path, PRIVATE['router.jpg'])}")


async def _huge(call: Call) -> None:
    """Send more than the demo's cap, announced by its length or in chunks without one."""
    announced = call.path == "announced.jpg"
    kind = f"Content-Length: {TOO_LARGE_BYTES}" if announced else "Transfer-Encoding: chunked"
    await call.send(f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nConnection: close\r\n{kind}\r\n\r\n".encode())
    block = bytes(60_000)
    for _ in range(TOO_LARGE_BYTES // len(block)):
        await call.send(block if announced else b"%x\r\n%b\r\n" % (len(block), block))
    if not announced:
        await call.send(b"0\r\n\r\n")


async def _empty(call: Call) -> None:
    await call.answer("200 OK", b"", "Content-Type: image/jpeg")


BEHAVIOURS: dict[str, Callable[[Call], Awaitable[None]]] = {
    "http-404": _status,
    "http-410": _status,
    "http-503": _status,
    "timeout": _slow,
    "reset": _reset,
    "garbage": _garbage,
    "redirect-loop": _loop,
    "redirect-private": _private,
    "huge": _huge,
    "empty-body": _empty,
}
"""Host name without its domain -> what it does; every other host serves its folder."""
