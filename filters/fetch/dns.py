"""Look names up in threads of our own, each name once while the answer is fresh, without the addresses that the guard
refuses."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from filters.fetch.cache import Cache
from filters.fetch.guard import Guard

FOUND_S = 300
"""Seconds an answer is used again: the system's resolver does not tell how long it holds. The guard judges every dial
all the same."""
FAILED_S = 60  # seconds a name that has no address is not asked for again
UNSURE_S = 5  # the same where the name's own servers did not answer
NAMES = 20_000  # names remembered

Found = list[ResolveResult]


class Resolver(AbstractResolver):
    """The system's resolver with a memory.

    aiohttp's own shares asyncio's few threads, so that six slow names hold up all others, and ending the loop waits for
    them.
    """

    def __init__(self, guard: Guard, threads: int, known: "Cache[Found | OSError] | None" = None) -> None:
        """`known`: answers of earlier, to be used and added to."""
        self.guard = guard
        self.known = Cache[Found | OSError](NAMES) if known is None else known
        self.asking: dict[tuple[str, int], asyncio.Future[Found]] = {}
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> Found:
        """Return the addresses of a name that may be dialled.

        Raises OSError where there are none, BlockedAddress (an OSError) where all are refused. Names under .invalid are
        never asked for: RFC 6761 has no such names.
        """
        if host.rpartition(".")[2].lower() == "invalid":
            raise OSError(socket.EAI_NONAME, "names under .invalid do not exist (RFC 6761)")
        found = [ResolveResult(**{**result, "port": port}) for result in await self._addresses(host, family)]
        allowed = [result for result in found if self.guard.refusal(result["host"]) is None]
        if not allowed:
            self.guard.check(found[0]["host"])
        return allowed

    async def _addresses(self, host: str, family: socket.AddressFamily) -> Found:
        """Return a name's addresses from memory, from a look-up under way, or from a new one. Raises OSError."""
        key = (host.lower(), int(family))
        known = self.known.get(key)
        if isinstance(known, OSError):
            raise OSError(*known.args)  # a new one each time: an exception that is raised again gathers tracebacks
        if known is not None:
            return known
        if key not in self.asking:
            self.asking[key] = future = asyncio.get_running_loop().run_in_executor(self.pool, _look_up, host, family)
            future.add_done_callback(lambda done: self._learn(key, done))
        return await asyncio.shield(self.asking[key])  # one that gives up leaves the look-up to the others

    def _learn(self, key: tuple[str, int], done: "asyncio.Future[Found]") -> None:
        self.asking.pop(key, None)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self.known.put(key, done.result(), FOUND_S)
        elif isinstance(error, OSError):
            unsure = isinstance(error, socket.gaierror) and error.errno not in (socket.EAI_NONAME, socket.EAI_NODATA)
            self.known.put(key, OSError(*error.args), UNSURE_S if unsure else FAILED_S)

    async def close(self) -> None:
        """Let go of the threads; one that still waits for an answer ends when it comes."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, family: socket.AddressFamily) -> Found:
    try:
        infos = socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError as error:
        raise OSError(socket.EAI_NONAME, f"not a name that can be asked for: {error}") from error
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = [(info[0], str(info[4][0]), info[2]) for info in infos if info[0] in (socket.AF_INET, socket.AF_INET6)]
    if not found:
        raise OSError(socket.EAI_NODATA, "no address")
    return [
        ResolveResult(hostname=host, host=text, port=0, family=kind, proto=proto, flags=flags)
        for kind, text, proto in found
    ]
