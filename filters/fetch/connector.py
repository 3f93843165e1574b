"""Open connections only to addresses that the guard allows, and use one again only where nothing unasked came through
it."""

import resource
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from filters.fetch.dns import Resolver
from filters.fetch.guard import BlockedAddress, ConnectMap, Guard
from filters.fetch.protocol import LenientHandler
from filters.fetch.site_name import site_of

if TYPE_CHECKING:
    from filters.fetch.politeness import HostQueues

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
IDLE_SHARE, MOST_IDLE = 4, 4096
"""Connections kept open for a next request: a quarter of the files that may be open, 4096 at most. A shard has
thousands of hosts."""


REUSED: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether this task's request goes out on a connection that was used before: its server may have ended that at the same
moment."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool of connections; `connect_to` is applied first, and the guard sees each address as it is
    dialled."""

    def __init__(self, guard: Guard, connect_to: ConnectMap, resolver: Resolver, traffic: "HostQueues") -> None:
        self.guard, self.connect_to, self.resolver, self.traffic = guard, connect_to, resolver, traffic
        self.idle: OrderedDict[ResponseHandler, str] = OrderedDict()
        """Idle connections and their sites, in the order in which they became idle."""
        self.of_site: dict[str, OrderedDict[ResponseHandler, None]] = {}
        self.most_idle = min(MOST_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // IDLE_SHARE)
        super().__init__(resolver=resolver, use_dns_cache=False, limit=0, socket_factory=self._socket)
        self._factory: Callable[[], ResponseHandler] = partial(LenientHandler, self._loop)  # type: ignore[assignment]

    def _socket(self, info: AddrInfo) -> socket.socket:
        """Make the socket for one sockaddr. Raises BlockedAddress where the guard refuses it: nothing is sent then."""
        family, kind, proto, _, sockaddr = info
        self.guard.check(str(sockaddr[0]))
        return socket.socket(family, kind, proto)

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """Resolve what `connect_to` makes of a host and port: aiohttp asks its resolver for names only, this covers
        addresses too."""
        return await super()._resolve_host(*self.connect_to.target(host, port), traces=traces)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """Take an idle connection; one that bytes came through since its last answer ended is closed: they would pass
        for the next one."""
        for protocol, _ in self._conns.get(key, ()):
            if protocol.should_close:
                protocol.close()
        connection = await super()._get(key, traces)
        site = site_of(key.host)
        if connection is not None and connection.protocol is not None:
            self._forget(connection.protocol)
            REUSED.set(True)
        elif (idle := self.of_site.get(site)) and self.traffic.is_full(site, len(idle)):
            self._end(next(iter(idle)))
        return connection

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        """Give a connection back; the one that has been idle the longest is closed where there are too many."""
        super()._release(key, protocol, should_close=should_close)
        if protocol.is_connected():
            site = site_of(key.host)
            self.idle[protocol] = site
            kept = self.of_site.setdefault(site, OrderedDict())
            kept[protocol] = None
            if isinstance(protocol, LenientHandler):
                protocol.lost = partial(self._forget, protocol)
            if len(kept) > self.traffic.most_idle:
                self._end(next(iter(kept)))
            else:
                self.traffic.kept(site, len(kept))
        while len(self.idle) > self.most_idle:
            self._end(next(iter(self.idle)))

    def _end(self, protocol: ResponseHandler) -> None:
        self._forget(protocol)
        protocol.close()

    def _forget(self, protocol: ResponseHandler) -> None:
        """Note that a connection is not idle any more."""
        site = self.idle.pop(protocol, None)
        if site is not None:
            kept = self.of_site[site]
            del kept[protocol]
            if not kept:
                del self.of_site[site]
            self.traffic.kept(site, len(kept))


def blocked(error: BaseException) -> BlockedAddress | None:
    """Return the guard's refusal inside a connection error, if there is one."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, BlockedAddress):
        seen = seen.__cause__
    return seen
