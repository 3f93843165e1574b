"""Keep the requests: those that wait, those in slots, and a bounded number of finished ones."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.serving.limits import Limits, Pace, Refused
from pipeline.serving.wish import Wish

State = Literal["waiting", "drawing", "done", "cancelled", "failed"]
ENDED = ("done", "cancelled", "failed")
MARK = 24
"""Hex digits of an id's mark: nobody guesses another's id, and one that was let go is told from one that never was."""


@dataclass
class Ticket:
    """One request from its coming to its end. Only the event loop touches it."""

    id: str
    wish: Wish
    client: str
    state: State = "waiting"
    codes: list[int] = field(default_factory=list)
    rows: int = 0  # rows of codes in the preview
    png: bytes = b""  # the preview, in the end the picture
    reason: str = ""  # why it was cancelled or failed
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    version: int = 0
    watchers: set[asyncio.Event] = field(default_factory=set)

    def changed(self) -> None:
        """Wake all who watch."""
        self.version += 1
        for watcher in self.watchers:
            watcher.set()


class Tickets:
    """The queue and what became of it. Nothing in it grows with the number of requests."""

    def __init__(self, limits: Limits, slots: int) -> None:
        self.limits, self.slots = limits, slots
        self.pace = Pace(limits.rate)
        self.waiting: OrderedDict[str, Ticket] = OrderedDict()
        self.drawing: dict[int, Ticket] = {}  # slot -> picture; a cancelled one stays until its slot is free
        self.ended: OrderedDict[str, Ticket] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.wanted = asyncio.Event()  # set while there is anything to do
        self._secret, self._number = secrets.token_bytes(32), 0

    def ask(self, wish: Wish, client: str) -> Ticket:
        """Put a wish into the queue. Raises Refused: 503 for a full queue, 429 for a client with too many in it."""
        if len(self.waiting) >= self.limits.queue:
            raise Refused(503, f"the queue is full ({self.limits.queue} wait); ask again later", 10)
        mine = sum(ticket.client == client for ticket in (*self.waiting.values(), *self.drawing.values()))
        if mine >= self.limits.per_client:
            raise Refused(429, f"{mine} pictures of yours wait or are drawn, which is the limit; let one end", 10)
        self._number += 1
        ticket = Ticket(f"{self._number}-{self._mark(self._number)}", wish, client)
        self.waiting[ticket.id] = ticket
        self.counts["asked"] += 1
        self.wanted.set()
        return ticket

    def find(self, name: str) -> Ticket:
        """Return a request. Raises Refused: 410 for one that was let go, 404 for one that there never was."""
        ticket = self.waiting.get(name) or self.ended.get(name)
        ticket = ticket or next((one for one in self.drawing.values() if one.id == name), None)
        if ticket is not None:
            return ticket
        number, _, mark = name.partition("-")
        known = number.isascii() and number.isdecimal() and len(number) < 20 and int(number) <= self._number
        if known and hmac.compare_digest(mark.encode(), self._mark(int(number)).encode()):
            raise Refused(410, f"{name} was let go; the last {self.limits.keep} pictures are kept")
        raise Refused(404, "there is no such request")

    def ahead(self, ticket: Ticket) -> int:
        """Return how many wait before a request that waits; 0 for the others."""
        if ticket.state != "waiting":
            return 0
        return list(self.waiting).index(ticket.id)

    def begin(self, slot: int) -> Ticket:
        """Take the first that waits into a slot; those behind it learn that they moved up."""
        _, ticket = self.waiting.popitem(last=False)
        ticket.state, ticket.begun = "drawing", time.monotonic()
        self.drawing[slot] = ticket
        ticket.changed()
        for other in self.waiting.values():
            other.changed()
        return ticket

    def end(self, ticket: Ticket, state: State, *, reason: str = "", png: bytes = b"") -> None:
        """Say how a request ended, and keep it among the last ones; one that has ended stays as it is."""
        if ticket.state in ENDED:
            return
        behind = list(self.waiting.values()) if self.waiting.pop(ticket.id, None) else []
        ticket.state, ticket.reason, ticket.png, ticket.codes = state, reason, png, []
        self.counts[state] += 1
        self.ended[ticket.id] = ticket
        while len(self.ended) > self.limits.keep:
            self.ended.popitem(last=False)
        self.wanted.set()
        for one in (ticket, *behind):
            one.changed()

    def let_go(self, ticket: Ticket) -> None:
        """Cancel a request, or forget its finished picture."""
        if ticket.state in ENDED:
            self.ended.pop(ticket.id, None)
        else:
            self.end(ticket, "cancelled", reason="cancelled")

    def record(self, ticket: Ticket) -> dict[str, Any]:
        """Return what is said of a request: /requests/ID, and the events without their previews."""
        said: dict[str, Any] = {"id": ticket.id, "state": ticket.state, **ticket.wish.record()}
        if ticket.state == "waiting":
            said["ahead"] = self.ahead(ticket)
        if ticket.state == "done":
            said["picture"] = f"/pictures/{ticket.id}"
        if ticket.reason:
            said["reason"] = ticket.reason
        return said

    def _mark(self, number: int) -> str:
        return hmac.new(self._secret, str(number).encode(), hashlib.sha256).hexdigest()[:MARK]
