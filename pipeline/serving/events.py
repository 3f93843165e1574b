"""Tell a client of its pictures as they are drawn: server-sent events, the latest state of each and no backlog."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.serving.drawing import log
from pipeline.serving.limits import Refused
from pipeline.serving.tickets import ENDED, Ticket, Tickets

HEARTBEAT = 15.0
"""Seconds after which a stream without news carries a comment, so that a client that is gone is found out."""
MOST_WATCHED = 32
"""Requests that one stream tells of."""


class Streams:
    """The open event streams, and what becomes of a picture that nobody watches any more."""

    def __init__(self, tickets: Tickets, grid: int) -> None:
        self.tickets, self.limits, self.grid = tickets, tickets.limits, grid
        self.open: Counter[str] = Counter()

    @contextmanager
    def watching(self, names: list[str], client: str) -> Iterator[tuple[list[Ticket], asyncio.Event]]:
        """Watch requests while the block runs. Raises Refused: too many streams, or a request that is not there.

        A picture that loses its last watcher is given up, unless one comes back within `Limits.grace` seconds.
        """
        if not 1 <= len(set(names)) <= MOST_WATCHED:
            raise Refused(400, f"{len(set(names))} requests, wanted 1 to {MOST_WATCHED}, with commas between")
        if self.open.total() >= self.limits.streams or self.open[client] >= self.limits.streams_per_client:
            raise Refused(429, "too many event streams are open; close one, or watch more requests in one stream", 10)
        tickets = [self.tickets.find(name) for name in dict.fromkeys(names)]
        news = asyncio.Event()
        news.set()
        self.open[client] += 1
        for ticket in tickets:
            ticket.watchers.add(news)
        try:
            yield tickets, news
        finally:
            self.open -= Counter({client: 1})
            for ticket in tickets:
                ticket.watchers.discard(news)
                if not ticket.watchers and ticket.state not in ENDED:
                    asyncio.get_running_loop().call_later(self.limits.grace, self._give_up, ticket)

    async def events(self, tickets: list[Ticket], news: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield events until all requests have ended: of each that changed its state, and its preview where it has
        another."""
        told, shown = dict.fromkeys((ticket.id for ticket in tickets), -1), Counter[str]()
        while True:
            try:
                await asyncio.wait_for(news.wait(), HEARTBEAT)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            news.clear()
            for ticket in tickets:
                if told[ticket.id] == ticket.version:
                    continue
                told[ticket.id] = ticket.version
                fresh, shown[ticket.id] = ticket.rows > shown[ticket.id], ticket.rows
                yield event(ticket.state, self._data(ticket, fresh))
            if all(ticket.state in ENDED and told[ticket.id] == ticket.version for ticket in tickets):
                return  # what changed while an event was written is told first

    def _data(self, ticket: Ticket, fresh: bool) -> dict[str, Any]:
        data = self.tickets.record(ticket)
        if ticket.state == "drawing":
            data |= {"rows": ticket.rows, "of": self.grid}
            if fresh:
                data["png"] = base64.b64encode(ticket.png).decode()
        return data

    def _give_up(self, ticket: Ticket) -> None:
        if not ticket.watchers and ticket.state not in ENDED:
            log(f"gave up {ticket.id}: nobody watches it any more")
            self.tickets.end(ticket, "cancelled", reason="nobody watched it any more")


def event(name: str, data: dict[str, Any]) -> bytes:
    """Return one server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
