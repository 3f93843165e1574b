"""Hold a port, load a model behind it, and serve until Ctrl-C."""

import asyncio
import signal
import socket
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp import web

from pipeline.serving.app import Service
from pipeline.serving.drawing import Drawing, log
from pipeline.serving.engine import Engine
from pipeline.serving.limits import Limits
from pipeline.serving.tickets import Tickets
from pipeline.serving.wish import Reader

CLOSING = 2.0
"""Seconds that open connections have to end in."""
LOOPBACK = ("127.", "::1")


class AddressError(ValueError):
    """The address cannot be listened at; the message says why."""


@dataclass(frozen=True)
class Address:
    """Where the server listens, and by which names it answers beside localhost and plain addresses."""

    host: str = "127.0.0.1"
    port: int = 8765  # 0: any that is free
    names: Collection[str] = field(default=())

    def bind(self) -> socket.socket:
        """Return a socket that holds the port. Raises AddressError where that cannot be."""
        try:
            family, *_, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            held = socket.socket(family, socket.SOCK_STREAM)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(place)
        except OSError as error:
            why = error.strerror or str(error)
            raise AddressError(f"{self.host} port {self.port}: {why}; --port and --host choose another") from error
        return held


def url_of(held: socket.socket) -> str:
    """Return the URL of a bound socket's server."""
    host, port = held.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@dataclass(frozen=True)
class Loaded:
    """A model that draws, how requests are read for it, and the thread in which it was made."""

    engine: Engine
    reader: Reader
    thread: ThreadPoolExecutor | None = None


def serve(load: Callable[[], tuple[Engine, Reader]], address: Address, limits: Limits) -> None:
    """Take the port, load the model, and serve until SIGINT or SIGTERM: then raise KeyboardInterrupt.

    Raises AddressError before the model is loaded, EngineFailed when it can draw no more, and what `load` raises.
    """
    with address.bind() as held, ThreadPoolExecutor(1, "draw") as thread:
        log(f"loading for {url_of(held)}")
        engine, reader = thread.submit(load).result()
        asyncio.run(_until_stopped(Loaded(engine, reader, thread), held, address, limits))
    raise KeyboardInterrupt


async def _until_stopped(loaded: Loaded, held: socket.socket, address: Address, limits: Limits) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    names = frozenset(name.lower() for name in (*address.names, address.host))
    engine = loaded.engine
    async with Running(loaded, held, names, limits) as running:
        if not url_of(held).removeprefix("http://").strip("[").startswith(LOOPBACK):
            log("whoever reaches this address may draw: there is no password")
        log(f"serving {engine.facts.says}")
        log(f"at {url_of(held)} ({engine.slots} slots; Ctrl-C ends)")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, running.task}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if running.task.done():
            running.task.result()


class Running:
    """A server inside an event loop, from entering to leaving: the socket is closed in the end."""

    def __init__(self, loaded: Loaded, held: socket.socket, names: frozenset[str], limits: Limits) -> None:
        engine, reader = loaded.engine, loaded.reader
        self.held, self.url = held, url_of(held)
        self.tickets = Tickets(limits, engine.slots)
        self.drawing = Drawing(engine, self.tickets, loaded.thread)
        self.service = Service(self.drawing, reader, names)
        self.runner = web.AppRunner(
            self.service.app(), handler_cancellation=True, access_log=None, shutdown_timeout=CLOSING
        )

    async def __aenter__(self) -> "Running":
        await self.runner.setup()
        await web.SockSite(self.runner, self.held).start()
        self.task = asyncio.create_task(self.drawing.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what waits and is drawn, tell those who watch, and close."""
        for ticket in [*self.tickets.waiting.values(), *self.tickets.drawing.values()]:
            self.tickets.end(ticket, "cancelled", reason="the server was stopped")
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.runner.cleanup()
