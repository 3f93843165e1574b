"""Answer HTTP requests: the page, and the endpoint that docs/serving.md describes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import resources
from typing import Any

from aiohttp import web

from pipeline.serving.drawing import Drawing, log
from pipeline.serving.events import Streams
from pipeline.serving.guard import HEADERS, check_host, check_origin
from pipeline.serving.limits import Refused, client_of
from pipeline.serving.tickets import Ticket, Tickets
from pipeline.serving.wish import Reader, WishError

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
BODY_SECONDS = 10.0
"""A request's body must be there after this time."""
ENDINGS = {"waiting": 409, "drawing": 409, "cancelled": 410, "failed": 500}
"""HTTP status where a picture is asked for that is not there, by the request's state."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """The handlers. One per server."""

    def __init__(self, drawing: Drawing, reader: Reader, names: frozenset[str]) -> None:
        """names: hosts that the server answers to beside localhost and plain addresses."""
        self.drawing, self.reader, self.names = drawing, reader, names
        self.tickets: Tickets = drawing.tickets
        self.limits, self.facts = drawing.limits, drawing.engine.facts
        self.streams = Streams(self.tickets, self.facts.grid)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guarded], client_max_size=self.limits.body)
        for path, (name, kind) in PAGE.items():
            app.router.add_get(path, _file(name, kind))
        app.router.add_post("/generate", self.generate)
        app.router.add_get("/requests/{id}", self.request)
        app.router.add_delete("/requests/{id}", self.delete)
        app.router.add_get("/events/{ids}", self.events)
        app.router.add_get("/pictures/{id}", self.picture)
        app.router.add_get("/status", self.status)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request.headers.get("Host"), self.names)
            if request.method not in ("GET", "HEAD"):
                check_origin(request.headers.get("Origin"), request.headers.get("Host"))
            response = await handler(request)
        except Refused as refused:
            response = _error(refused.status, str(refused))
            if refused.retry_after is not None:
                response.headers["Retry-After"] = str(refused.retry_after)
        except WishError as error:
            response = _error(400, str(error))
        except web.HTTPException as error:
            response = _error(error.status, f"{request.method} {request.path[:80]}: {error.reason}")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def generate(self, request: web.Request) -> web.Response:
        """POST /generate: put a wish into the queue."""
        client = client_of(request.remote)
        self.tickets.pace.take(client)
        if request.content_type != "application/json":
            raise Refused(415, f"the body is {request.content_type}, wanted Content-Type: application/json")
        ticket = self.tickets.ask(self.reader.read(await self._body(request)), client)
        log(f"queued {ticket.id} of {client}: {len(ticket.wish.text)} characters, {len(self.tickets.waiting)} wait")
        links = {"events": f"/events/{ticket.id}", "picture": f"/pictures/{ticket.id}"}
        return web.json_response({**self.tickets.record(ticket), **links}, status=202)

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await request.read()
        except TimeoutError as error:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:g} s") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(413, f"the body has more than {self.limits.body:,} bytes") from error

    async def request(self, request: web.Request) -> web.Response:
        """GET /requests/ID: how it stands."""
        return web.json_response(self.tickets.record(self._ticket(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /requests/ID: cancel it, or forget its picture."""
        ticket = self._ticket(request)
        self.tickets.let_go(ticket)
        log(f"let go {ticket.id}, {ticket.state}")
        return web.json_response(self.tickets.record(ticket))

    async def picture(self, request: web.Request) -> web.Response:
        """GET /pictures/ID: the PNG."""
        ticket = self._ticket(request)
        if ticket.state != "done":
            why = f": {ticket.reason}" if ticket.reason else ""
            raise Refused(ENDINGS[ticket.state], f"{ticket.id} is {ticket.state}{why}")
        return web.Response(body=ticket.png, content_type="image/png")

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /events/ID[,ID…]: server-sent events until all of them have ended."""
        names = request.match_info["ids"].split(",")
        with self.streams.watching(names, client_of(request.remote)) as (tickets, news):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **HEADERS})
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                async for event in self.streams.events(tickets, news):
                    await response.write(event)
                await response.write_eof()
        return response

    async def status(self, request: web.Request) -> web.Response:
        """GET /status: the model, the queue and the limits."""
        tickets, drawing = self.tickets, self.drawing
        speed = drawing.drawn / drawing.busy if drawing.busy else 0.0
        return web.json_response(
            {
                "model": asdict(self.facts),
                "slots": {"all": drawing.engine.slots, "taken": len(tickets.drawing)},
                "queue": {"waiting": len(tickets.waiting), "limit": self.limits.queue},
                "requests": {name: tickets.counts[name] for name in ("asked", "done", "cancelled", "failed")},
                "kept": len(tickets.ended),
                "streams": self.streams.open.total(),
                "codes_per_second": round(speed, 1),
                "prompt_length": self.reader.prompt_length,
                "defaults": _defaults(self.reader),
                "limits": asdict(self.limits),
            }
        )

    def _ticket(self, request: web.Request) -> Ticket:
        return self.tickets.find(request.match_info["id"])


def _defaults(reader: Reader) -> dict[str, Any]:
    base = reader.defaults
    return {name: getattr(base, name) for name in ("cfg_scale", "top_k", "top_p", "temperature")}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def _file(name: str, kind: str) -> Handler:
    body = resources.files(__package__).joinpath("page", name).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer
