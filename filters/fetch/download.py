"""Ask for one URL under its deadline: redirects handed back, caps kept, refusals obeyed, cookies, proxies and .netrc
off."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from filters.fetch.body import Body, BodyFault
from filters.fetch.clock import Clocks, origin_of
from filters.fetch.codings import CodingFault
from filters.fetch.config import FetchConfig
from filters.fetch.connector import REUSED, Connector
from filters.fetch.dns import Resolver
from filters.fetch.faults import Fault, Refusal, before_header, in_body, is_ours, of_redirect
from filters.fetch.guard import ConnectMap, Guard
from filters.fetch.hosts import FetchTask
from filters.fetch.optout import Receipt, header_refusal, statement_refusal
from filters.fetch.politeness import HostQueues
from filters.fetch.preferences import STATEMENTS
from filters.fetch.site_text import unpacked
from filters.fetch.sites import IN_PLACE, Page, SiteCache, Sites
from filters.fetch.url import UrlFault, follow
from manifests.guard import Guard as Foreign
from manifests.reasons import of_status
from manifests.retry_after import retry_after

HEADERS = {"Accept": "image/jpeg, image/png, image/webp, image/*;q=0.8, */*;q=0.5", "Accept-Encoding": "identity"}
REDIRECTS = {301, 302, 303, 307, 308}
MAX_HEADER_LINE = 16_384  # bytes of one header line; 128 lines (aiohttp's default) may come
BLOCK = 1 << 16  # bytes taken from a connection at a time
RANGE = re.compile(r"bytes(?:[ \t]*=[ \t]*|[ \t]+)(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE)
SITE_DEADLINE_S = 10.0  # for robots.txt and tdmrep.json each, where the URL's own deadline is longer
SITE_REDIRECTS = 5  # RFC 9309: at least five

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of one request: a `body`, a `location` to go on to, or a `reason`."""

    final_url: str
    status: int | None = None
    reason: str | None = None
    detail: str = ""
    body: Body | None = None
    location: str | None = None
    receipt: Receipt | None = None
    passing: bool = False  # whether a Refusal may turn out otherwise in a moment
    wait_s: float | None = None  # what Retry-After said


class Downloader:
    """A session: one pool of guarded connections for many URLs. Use it with `async with`, in one event loop.

    Every request leaves through `_ask`; a picture's only once `sites` let its URL pass.
    """

    def __init__(self, config: FetchConfig, memory: SiteCache, traffic: HostQueues, held: bool = False) -> None:
        """Fix the settings; `held`: bodies stay in memory, however large. Raises ValueError for wrong ones."""
        self.config, self.traffic, self.held = config, traffic, held
        self.guard = Guard.of(config.allow_addresses)
        self.connect_to = ConnectMap.of(config.connect_to)
        self.resolver = Resolver(self.guard, 2 * config.concurrency, memory.names)
        self.sites = Sites(config, memory, self._page)
        self.clocks = Clocks()

    async def __aenter__(self) -> "Downloader":
        # asyncio reports stray TLS and socket errors of peers to the loop; they are no news of ours.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logger.debug("%s", context))
        self.session = aiohttp.ClientSession(
            connector=Connector(self.guard, self.connect_to, self.resolver, self.traffic),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**HEADERS, "User-Agent": self.config.user_agent},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the one deadline is around all of it
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
        )
        self.session._retry_connection = False  # aiohttp would ask a failing server twice for each attempt; see _send
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.sites.close()
        await self.session.close()
        await self.resolver.close()

    async def request(self, job: FetchTask) -> Outcome:
        """Return the outcome of one request of a job, within what is left of its deadline.

        Whatever the server does becomes a reason. Raises OSError where this machine is at fault.
        """
        outcome = Outcome(final_url=job.url, status=job.status)
        job.attempts += job.hops == 0
        try:
            async with self.clocks.of(job) as clock:
                if self.config.asks_first:  # a site's files are asked for on the clock of the URL that waits for them
                    with self.clocks.waits(clock):
                        delay_s = await self.sites.check(job.url)
                    self.traffic.learned(job.url, delay_s)
                answer = await self._hop(job.url, outcome)
            if isinstance(answer, Body):
                outcome.body = answer
            elif job.hops >= self.config.max_redirects:
                raise Fault("too_many_redirects", f"more than {self.config.max_redirects}, the last to {answer[:200]}")
            else:
                outcome.location = self._onward(job.url, answer)
        except TimeoutError:
            outcome.reason, outcome.detail = "timeout", f"not done after {self.config.deadline_s:g} s"
        except Refusal as refusal:
            outcome.receipt, outcome.passing = refusal.receipt, refusal.passing
            outcome.reason, outcome.detail = refusal.reason, refusal.detail
        except Fault as fault:
            outcome.reason, outcome.detail = fault.reason, fault.detail
        job.status = outcome.status
        return outcome

    def _onward(self, url: str, location: str) -> str:
        """Return where a redirect leads. Raises Fault, `removed` where lists or tombstones name that URL."""
        onward = _next(url, location)
        if self.sites.memory.bars(onward):
            raise Fault("removed", "redirected to what a list or a tombstone names")
        return onward

    async def _page(self, url: str, size: int) -> Page:
        """Ask for a site's file through the same guard, caps and redirects, within a small deadline of its own."""
        seconds, statuses = min(self.config.deadline_s, SITE_DEADLINE_S), list[int]()
        body, fault = b"", None
        try:
            body = await self._followed(url, size, statuses, seconds)
        except TimeoutError:
            fault = Fault("timeout", f"not done after {seconds:g} s")
        except Fault as met:
            fault = met
        return Page(body, moved=not REDIRECTS.isdisjoint(statuses), fault=fault)

    async def _followed(self, url: str, size: int, statuses: list[int], seconds: float) -> bytes:
        """Return the body, cut at `size` bytes, to which this URL leads, and note each answer's status on the way.
        Raises Fault, and TimeoutError after so many seconds, turns of other sites not counted."""
        start = url
        for _ in range(SITE_REDIRECTS + 1):
            async with self._turn(start, url):
                began = time.monotonic()
                async with asyncio.timeout(seconds), self._ask(url) as response:
                    statuses.append(response.status)
                    location = _location(response)
                    if location is None:
                        raw = (await self._read(response, size, cut=True)).take()
                        return await _site_file(raw, _encoding(response), size)
                seconds -= time.monotonic() - began
            url = _next(url, location)
        raise Fault("too_many_redirects", f"more than {SITE_REDIRECTS}")

    @contextlib.asynccontextmanager
    async def _turn(self, start: str, url: str) -> AsyncIterator[None]:
        """Count a request for a file of the site of `start`, inside; one that leads to another site waits for that
        site's turn first, off the clock of those who wait for the file."""
        if self.traffic.host(start).site is self.traffic.host(url).site:
            self._count(url)
            yield
            return
        async with contextlib.AsyncExitStack() as turn:
            with self.clocks.stand(origin_of(start)):
                await turn.enter_async_context(self.traffic.visit(url))
            yield

    def _count(self, url: str) -> None:
        """Count a request beside that of a job."""
        self.traffic.spent(url)

    async def _hop(self, url: str, outcome: Outcome) -> Body | str:
        """Ask for one URL. Return its body, or the Location it names. Raises Fault."""
        async with self._ask(url) as response:
            outcome.status = response.status
            outcome.wait_s = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
            try:
                return self._moved(response) or await self._read(response, self.config.max_bytes)
            except Fault as fault:
                if not fault.is_http:  # whether the header came through first depends on packets: the ledger must not
                    outcome.status = None
                raise

    @contextlib.asynccontextmanager
    async def _ask(self, url: str, method: str = "GET") -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and hand over the answer, its header read. Raises Fault."""
        response = await self._send(url, method)
        try:
            yield response
        finally:
            response.release()  # a connection whose body was not read to its end is closed, not used again

    async def _send(self, url: str, method: str) -> aiohttp.ClientResponse:
        """Send one request: on a fresh connection once more where one that was kept turns out to be closed. Raises
        Fault."""
        while True:
            REUSED.set(False)
            with Foreign() as answer:
                return await self.session.request(method, URL(url, encoded=True), allow_redirects=False)
            error = answer.error
            if error is not None and is_ours(error):
                raise error
            was_closed = isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)
            if error is not None and not (REUSED.get() and was_closed):
                raise before_header(error) from error

    def _moved(self, response: aiohttp.ClientResponse) -> str | None:
        """Return where an answer leads, or None where it holds a body. Raises Fault for other statuses and for a
        refusal."""
        location = _location(response)
        self._obey(response)
        return location

    def _obey(self, response: aiohttp.ClientResponse) -> None:
        """Raise Refusal where an answer's headers refuse use of what it holds or leads to."""
        headers, obeyed = response.headers, self.config.opt_outs
        tags, tdm = headers.getall("X-Robots-Tag", ()), headers.getall("tdm-reservation", ())
        statements = {name: headers.getall(name, ()) for name in STATEMENTS}
        receipt = header_refusal(tags, tdm, self.sites.names, obeyed) or statement_refusal(statements, obeyed)
        if receipt:
            raise Refusal("opted_out", receipt)

    async def _read(self, response: aiohttp.ClientResponse, size: int, cut: bool = False) -> Body:
        """Return an answer's body of at most `size` bytes; `cut`: what is longer is cut a little above that, and
        codings stay. Raises Fault."""
        length = response.content_length
        if length is not None and length > size and not cut:
            raise Fault("too_large", f"Content-Length {length}, at most {size} bytes are taken")
        with contextlib.ExitStack() as closing:
            with Foreign() as arrival:
                body = Body(size + BLOCK * cut, "" if cut else _encoding(response), self.held)
                closing.callback(body.close)
                await _receive(response, body)
            error = arrival.error
            if error is None or (cut and isinstance(error, BodyFault) and error.reason == "too_large"):
                closing.pop_all()
                return body
            if is_ours(error):
                raise error
            raise in_body(error) from error


def _encoding(response: aiohttp.ClientResponse) -> str:
    return ", ".join(response.headers.getall("Content-Encoding", ()))


async def _site_file(raw: bytes, encoding: str, size: int) -> bytes:
    """Return what a site's file holds; what is large is unpacked in a thread. Raises Fault."""
    try:
        if len(raw) < IN_PLACE:
            return unpacked(raw, encoding, size)
        return await asyncio.to_thread(unpacked, raw, encoding, size)
    except CodingFault as fault:
        raise Fault(fault.reason, fault.detail) from fault


async def _receive(response: aiohttp.ClientResponse, body: Body) -> None:
    """Feed an answer's body as it arrives, to its end. Raises BodyFault, and what aiohttp and the disk raise."""
    with _woken_by_close(response):
        async for block in response.content.iter_chunked(BLOCK):
            body.feed(block)
    body.end()
    named = RANGE.fullmatch(response.headers.get("Content-Range", "").strip()) if response.status == 206 else None
    if named and body.sent != int(named[2]) + 1:
        raise BodyFault("incomplete_body", f"{body.sent} bytes of status 206, {int(named[2]) + 1} were named")


def _next(url: str, location: str) -> str:
    """Return where a redirect leads. Raises Fault."""
    try:
        return follow(url, location)
    except UrlFault as fault:
        raise of_redirect(fault) from fault


@contextlib.contextmanager
def _woken_by_close(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Make the end of a connection known to the body's reader, where aiohttp 3.14 does not.

    At a malformed chunk it closes the connection and leaves the reader waiting; a body without a length that is reset
    counts as whole.
    """
    connection, content = response.connection, response.content
    protocol = connection.protocol if connection else None
    closed = protocol.closed if protocol is not None else None  # its truth is that of an empty queue

    def wake(future: "asyncio.Future[None]") -> None:
        """Let the reader of the body know that the connection is gone."""
        lost = None if future.cancelled() else future.exception()
        if protocol is not None and not content.is_eof() and content.exception() is None:
            content.set_exception(
                protocol.exception() or aiohttp.ClientPayloadError(f"connection closed within the body: {lost}")
            )

    if closed is None:
        yield
        return
    closed.add_done_callback(wake)
    try:
        yield
        until_close = (
            response.content_length is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower()
        )
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
    if response.status == 206 and not _is_whole(response.headers.get("Content-Range", "")):
        raise Fault("incomplete_body", f"status 206 with {response.headers.get('Content-Range', '')[:100]!r}")
    if not 200 <= response.status < 300:
        reason = of_status(response.status)
        raise Fault(reason, response.reason or "", is_http=reason != "bad_response")
    return None


def _is_whole(content_range: str) -> bool:
    """Say whether an answer 206 to a request for the whole may hold the whole: all of its bytes, or from the first one
    on where their number is not named; the picture's own end mark tells then."""
    match = RANGE.fullmatch(content_range.strip())
    if match is None:
        return not content_range.strip()
    first, last, total = match.groups()
    return int(first) == 0 and (total == "*" or int(last) + 1 == int(total))
