"""Open connections only to addresses that the guard allows, with names resolved in threads of our own."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.tracing import Trace

from filters.fetch.guard import BlockedAddress, ConnectMap, Guard

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
DNS_TTL_S = 300  # seconds an answer is used again; the guard looks at every dial all the same


class Resolver(AbstractResolver):
    """The system's resolver, without the addresses that the guard refuses.

    aiohttp's own shares asyncio's few threads, so that six slow names hold up all others, and ending the loop waits for them.
    """

    def __init__(self, guard: Guard, threads: int) -> None:
        self.guard = guard
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Return the addresses of a name that may be dialled.

        Raises OSError where there are none, BlockedAddress (an OSError) where all are refused. Names under .invalid are
        never asked for: RFC 6761 has no such names.
        """
        if host.rpartition(".")[2].lower() == "invalid":
            raise OSError(socket.EAI_NONAME, "names under .invalid do not exist (RFC 6761)")
        found = await asyncio.get_running_loop().run_in_executor(self.pool, _look_up, host, port, family)
        allowed = [result for result in found if self.guard.refusal(result["host"]) is None]
        if not allowed:
            self.guard.check(found[0]["host"])
        return allowed

    async def close(self) -> None:
        """Let go of the threads; one that still waits for an answer ends when it comes."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    try:
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError as error:
        raise OSError(socket.EAI_NONAME, f"not a name that can be asked for: {error}") from error
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    # getnameinfo keeps the zone of a link-local address; the plain text of others is the sockaddr's own.
    found = [(info[0], str(info[4][0]), info[2]) for info in infos if info[0] in (socket.AF_INET, socket.AF_INET6)]
    if not found:
        raise OSError(socket.EAI_NODATA, "no address")
    return [ResolveResult(hostname=host, host=text, port=port, family=kind, proto=proto, flags=flags) for kind, text, proto in found]


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool of connections; `connect_to` is applied first, and the guard sees each address as it is dialled."""

    def __init__(self, guard: Guard, connect_to: ConnectMap, concurrency: int) -> None:
        self.guard, self.connect_to = guard, connect_to
        self.resolver = Resolver(guard, threads=2 * concurrency)
        super().__init__(resolver=self.resolver, ttl_dns_cache=DNS_TTL_S, limit=0, socket_factory=self._socket)

    def _socket(self, info: AddrInfo) -> socket.socket:
        """Make the socket for one sockaddr. Raises BlockedAddress where the guard refuses it: nothing is sent then."""
        family, kind, proto, _, sockaddr = info
        self.guard.check(str(sockaddr[0]))
        return socket.socket(family, kind, proto)

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """Resolve what `connect_to` makes of a host and port: aiohttp asks its resolver for names only, this covers addresses too."""
        return await super()._resolve_host(*self.connect_to.target(host, port), traces=traces)


def blocked(error: BaseException) -> BlockedAddress | None:
    """Return the guard's refusal inside a connection error, if there is one."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, BlockedAddress):
        seen = seen.__cause__
    return seen
