"""Get one URL under one deadline: redirects followed by hand, caps kept, cookies, proxies and .netrc off."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from filters.fetch.body import Body
from filters.fetch.config import FetchConfig
from filters.fetch.connector import Connector
from filters.fetch.faults import PASSING, Fault, before_header, in_body, is_ours, of_redirect
from filters.fetch.guard import ConnectMap, Guard
from filters.fetch.url import UrlFault, follow, normalise

HEADERS = {"Accept": "image/jpeg, image/png, image/webp, image/*;q=0.8, */*;q=0.5", "Accept-Encoding": "identity"}
REDIRECTS = {301, 302, 303, 307, 308}
MAX_HEADER_LINE = 16_384  # bytes of one header line; 128 lines (aiohttp's default) may come
BLOCK = 1 << 16  # bytes taken from a connection at a time

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of a URL: `reason` None and a `body`, or a reason and none."""

    final_url: str
    status: int | None = None
    reason: str | None = None
    detail: str = ""
    body: Body | None = None


class Downloader:
    """A session: one pool of guarded connections for many URLs. Use it with `async with`, in one event loop.

    Every request leaves through `_hop`, so what must be asked before a host is (its pace, its robots.txt) has one place.
    """

    def __init__(self, config: FetchConfig) -> None:
        """Fix the settings. Raises ValueError for wrong ones."""
        self.config = config
        self.guard = Guard.of(config.allow_addresses)
        self.connect_to = ConnectMap.of(config.connect_to)

    async def __aenter__(self) -> "Downloader":
        # asyncio reports stray TLS and socket errors of peers to the loop; they are no news of ours.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logger.debug("%s", context))
        connector = Connector(self.guard, self.connect_to, self.config.concurrency)
        self.resolver = connector.resolver
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**HEADERS, "User-Agent": self.config.user_agent},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the one deadline is around all of it
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.session.close()
        await self.resolver.close()

    async def get(self, url: str) -> Outcome:
        """Return the outcome for one URL as written in a table, within the deadline.

        Whatever the server does becomes a reason. Raises OSError where this machine is at fault.
        """
        outcome = Outcome(final_url=url)
        try:
            async with asyncio.timeout(self.config.deadline_s):
                outcome.body = await self._attempts(url, outcome)
        except TimeoutError:
            outcome.reason, outcome.detail = "timeout", f"not done after {self.config.deadline_s:g} s"
        except (Fault, UrlFault) as fault:
            outcome.reason, outcome.detail = fault.reason, fault.detail
        return outcome

    async def _attempts(self, url: str, outcome: Outcome) -> Body:
        start = normalise(url)
        for _ in range(self.config.retries):
            try:
                return await self._follow(start, outcome)
            except Fault as fault:
                if fault.reason not in PASSING:
                    raise
                outcome.status = None
        return await self._follow(start, outcome)

    async def _follow(self, url: str, outcome: Outcome) -> Body:
        for _ in range(self.config.max_redirects + 1):
            outcome.final_url = url
            answer = await self._hop(url, outcome)
            if isinstance(answer, Body):
                return answer
            try:
                url = follow(url, answer)
            except UrlFault as fault:
                raise of_redirect(fault) from fault
        raise Fault("too_many_redirects", f"more than {self.config.max_redirects}, the last to {url[:200]}")

    async def _hop(self, url: str, outcome: Outcome) -> Body | str:
        """Ask for one URL. Return its body, or the Location it names. Raises Fault."""
        try:
            response = await self.session.get(URL(url, encoded=True), allow_redirects=False)
        except Exception as error:
            if is_ours(error):
                raise
            raise before_header(error) from error
        try:
            outcome.status = response.status
            return _location(response) or await self._read(response)
        except Fault as fault:
            if not fault.is_http:  # whether the header came through first depends on packets: the ledger must not
                outcome.status = None
            raise
        finally:
            response.release()  # a connection whose body was not read to its end is closed, not used again

    async def _read(self, response: aiohttp.ClientResponse) -> Body:
        length = response.content_length
        if length is not None and length > self.config.max_bytes:
            raise Fault("too_large", f"Content-Length {length}, at most {self.config.max_bytes} bytes are taken")
        body: Body | None = None
        try:
            body = Body(self.config.max_bytes, response.headers.get("Content-Encoding", ""))
            with _woken_by_close(response):
                async for block in response.content.iter_chunked(BLOCK):
                    body.feed(block)
            body.end()
            return body
        except BaseException as error:
            if body is not None:
                body.close()
            if not isinstance(error, Exception) or is_ours(error):
                raise
            raise in_body(error) from error


@contextlib.contextmanager
def _woken_by_close(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Make the end of a connection known to the body's reader, where aiohttp 3.14 does not.

    At a malformed chunk it closes the connection and leaves the reader waiting; a body without a length that is reset counts as whole.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection else None
    closed = protocol.closed if protocol is not None else None  # its truth is that of an empty queue

    def wake(future: "asyncio.Future[None]") -> None:
        lost = None if future.cancelled() else future.exception()
        if protocol is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(protocol.exception() or aiohttp.ClientPayloadError(f"connection closed within the body: {lost}"))

    if closed is None:
        yield
        return
    closed.add_done_callback(wake)
    try:
        yield
        until_close = response.content_length is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower()
        if until_close and closed.done() and not closed.cancelled() and (lost := closed.exception()):
            raise aiohttp.ClientPayloadError(str(lost))
    finally:
        closed.remove_done_callback(wake)


def _location(response: aiohttp.ClientResponse) -> str | None:
    """Return where a redirect leads, or None where a body is to be read. Raises Fault for other statuses."""
    if response.status in REDIRECTS:
        if location := response.headers.get("Location", "").strip():
            return location
        raise Fault("bad_response", f"status {response.status} without a Location")
    if response.status == 206:
        raise Fault("incomplete_body", "status 206, though the whole was asked for")
    if not 200 <= response.status < 300:
        raise Fault(f"http_{response.status}", response.reason or "")
    return None
