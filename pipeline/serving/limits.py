"""Bound what clients may ask of the server: how much at once, how often, how long things are kept."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KNOWN_CLIENTS = 4096
"""Clients whose rate is remembered; beyond it the one that asked longest ago is forgotten."""


class Refused(Exception):
    """A request is not taken: the HTTP status, a sentence, and after how many seconds it may come again."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Limits:
    """What the server takes. Each bound holds memory flat, whatever clients do."""

    queue: int = 64  # pictures that wait
    per_client: int = 16  # pictures of one client that wait or are drawn
    rate: int = 60  # requests per minute and client; as many may come at once
    keep: int = 64  # finished pictures in memory
    streams: int = 64  # open event streams
    streams_per_client: int = 16
    body: int = 16384  # bytes of a request
    preview_rows: int = 4  # rows of codes between two previews; 0: none
    grace: float = 5.0  # seconds that a picture waits for a watcher to come back
    turn: float = 0.05  # seconds of drawing between two looks at the queue


class Pace:
    """Tokens per client: `rate` of them at first, one more each 60 / rate seconds; a request takes one."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.clock = rate, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, at which time

    def take(self, client: str) -> None:
        """Count a request. Raises Refused (429) for one too many."""
        now = self.clock()
        tokens, before = self._clients.pop(client, (float(self.rate), now))
        tokens = min(float(self.rate), tokens + (now - before) * self.rate / 60)
        taken = tokens >= 1
        self._clients[client] = (tokens - 1 if taken else tokens, now)
        if len(self._clients) > KNOWN_CLIENTS:
            self._clients.popitem(last=False)
        if not taken:
            wait = int((1 - tokens) * 60 / self.rate) + 1
            raise Refused(429, f"more than {self.rate} requests a minute; ask again in {wait} s", wait)


def client_of(address: str | None) -> str:
    """Return whose request one from this address is: an IPv4 address, or the /64 that an IPv6 one lies in."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
