"""Decide which URL goes next: so many connections and requests a second for each host, and rest for a host that asks
for it or fails.

URLs wait in a queue for each host, as plain objects: a host that must wait holds nobody else up, and ten thousand URLs
of one host are no more tasks than its connections. Nothing here is ever a URL's reason: each gets the one that its own
attempt ended with.
"""

import asyncio
import hashlib
import heapq
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filters.fetch.config import FetchConfig

if TYPE_CHECKING:
    from filters.fetch.messages import Request


PATIENCE = 2
"""Further attempts of a URL whose host asked for patience (429, 503 with Retry-After), on top of `fetch.retries`."""
FIRST_WAIT_S = 1.0  # seconds after a first 429 without Retry-After; doubled each time
RETRY_WAIT_S = 0.5  # seconds before a first retry of a passing fault; doubled each time
CATCH_UP_S = 0.1
"""Seconds, less the pause between two requests, by which late starts may be made up for: timers that ring late do not
lower a high rate."""


class HostSignal(Enum):
    """How a host behaved in one request: `fine`, `busy` (it asks for patience) or `failed` (connection, timeout,
    5xx)."""

    FINE = "fine"
    BUSY = "busy"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class FetchTask:
    """One URL on its way. `url` is where it is now, `left_s` what remains of its deadline: time spent waiting does not
    count."""

    request: "Request"
    start: str
    url: str
    left_s: float
    retries: int
    patience: int = PATIENCE
    hops: int = 0
    attempts: int = 0
    status: int | None = None

    def jitter(self) -> float:
        """Return a number in [0, 1) that depends on the row and the attempt alone."""
        seed = self.request.uid + b"\n" + self.start.encode() + b"\n%d" % self.attempts
        return int.from_bytes(hashlib.sha256(seed).digest()[:4], "big") / 2**32

    def again(self) -> None:
        """Go back to the start for one more attempt."""
        self.url, self.hops, self.status = self.start, 0, None


@dataclass(slots=True, eq=False)
class Host:
    """What is known of one host, and the jobs that wait for it. Times are seconds of the monotonic clock."""

    config: FetchConfig
    waiting: deque[FetchTask] = field(default_factory=deque)
    later: list[tuple[float, int, FetchTask]] = field(default_factory=list)
    active: int = 0
    met: bool = False  # whether its rules are known: until then one job at a time
    humble: bool = False  # told to stay away for longer than we wait: one at a time
    spent: bool = False  # no time left for rests: what waits is asked for at half the connections
    asked_at: float = 0.0
    next_at: float = 0.0
    rest_until: float = 0.0
    rested_s: float = 0.0
    delay_s: float = 0.0
    faults: int = 0
    openings: int = 0
    level: int = 0
    entry: int = 0  # the number under which it stands in the order of turns, at `placed_at`
    placed_at: float | None = None

    def limit(self) -> int:
        """Return how many jobs may be on their way to this host now."""
        if not self.met or self.humble or (self.faults >= self.config.breaker_faults and not self.spent):
            return 1
        return max(1, self.config.host_connections // 2) if self.spent else self.config.host_connections

    def ready_at(self) -> float | None:
        """Return from when a job may start, or None where none may before another ends."""
        if self.active >= self.limit() or not (self.waiting or self.later):
            return None
        at = max(self.next_at, self.rest_until)
        return at if self.waiting else max(at, self.later[0][0])

    def take(self, now: float) -> FetchTask:
        """Return the next job and count it as on its way."""
        while self.later and self.later[0][0] <= now:
            self.waiting.append(heapq.heappop(self.later)[2])
        self.active, self.asked_at = self.active + 1, now
        pause = max(1 / self.config.host_rate, self.delay_s)
        self.next_at = max(self.next_at, now - max(0.0, CATCH_UP_S - pause)) + pause
        return self.waiting.popleft()

    def rest(self, now: float, seconds: float) -> bool:
        """Leave the host alone for a while. Return False, and do not, where `fetch.max_wait_s` in all does not allow
        it."""
        if now < self.rest_until:  # it rests already: this is about a request from before
            return True
        if self.rested_s + seconds > self.config.max_wait_s:
            return False
        self.rested_s, self.rest_until = self.rested_s + seconds, now + seconds
        return True

    def fine(self) -> None:
        """Note that it answered."""
        self.faults = self.openings = self.level = 0
        self.spent = self.humble = False

    def busy(self, now: float, seconds: float | None, jitter: float) -> bool:
        """Note that it asked for patience; say whether it is granted."""
        wait = FIRST_WAIT_S * 2 ** min(self.level, 20) if seconds is None else seconds
        if not self.rest(now, wait * (1 + jitter / 4)):
            self.humble = True
            return False
        self.level += 1
        return True

    def failed(self, now: float) -> None:
        """Note a fault of the host. After `breaker_faults` in a row it rests, then one job at a time tries it, each
        rest twice as long."""
        self.faults += 1
        if self.faults < self.config.breaker_faults or now < self.rest_until or self.spent:
            return
        if self.rest(now, self.config.breaker_rest_s * 2 ** min(self.openings, 20)):
            self.openings += 1
        else:
            self.spent = True


class HostQueues:
    """All hosts of one shard, and whose turn it is. To be used within one event loop."""

    def __init__(self, config: FetchConfig) -> None:
        """Start with nothing."""
        self.config = config
        self.hosts: dict[str, Host] = {}
        self.ready: list[tuple[float, int, Host]] = []
        self.numbers = 0
        self.open = 0
        self.alarm: asyncio.Future[None] | None = None

    def add(self, job: FetchTask) -> None:
        """Queue a new job."""
        self.open += 1
        self._queue(job)

    def host(self, url: str) -> Host:
        """Return what is known of a URL's host: its name, whatever the scheme and port."""
        name = urlsplit(url).hostname or ""
        found = self.hosts.get(name)
        if found is None:
            found = self.hosts[name] = Host(self.config)
            found.met = not self.config.asks_first
        return found

    async def next(self) -> FetchTask | None:
        """Wait for the next job that may start; None where there is none and will be none."""
        while self.open:
            while self.ready and self.ready[0][1] != self.ready[0][2].entry:
                heapq.heappop(self.ready)
            now = time.monotonic()
            if self.ready and self.ready[0][0] <= now:
                host = heapq.heappop(self.ready)[2]
                host.placed_at = None
                job = host.take(now)
                self._place(host)
                return job
            await self._change(self.ready[0][0] - now if self.ready else None)
        return None

    def learned(self, url: str, delay_s: float | None) -> None:
        """Note that a host's rules are known, and the pause between requests that it asks for."""
        host = self.host(url)
        if delay_s:
            pause = min(delay_s, self.config.max_crawl_delay_s)
            host.next_at = max(host.next_at, host.asked_at + pause)
            host.delay_s = max(host.delay_s, pause)
        if not host.met:
            host.met = True
            self._place(host)

    def moved(self, job: FetchTask, url: str) -> None:
        """Note that a request ended in a redirect: the job queues for where it leads."""
        host = self.host(job.url)
        host.active -= 1
        host.fine()
        self._place(host)
        job.url, job.hops = url, job.hops + 1
        self._queue(job)

    def ended(self, job: FetchTask, turn: HostSignal, passing: bool, wait_s: float | None = None) -> bool:
        """Note that an attempt ended; return whether its outcome stands. If not, the job is queued once more.

        `passing`: whether a second attempt may cure the fault; `wait_s`: what Retry-After said.
        """
        host, now = self.host(job.url), time.monotonic()
        host.active -= 1
        host.met = True
        granted = turn is HostSignal.BUSY and host.busy(now, wait_s, job.jitter()) and job.patience > 0
        if turn is HostSignal.FAILED:
            host.failed(now)
        elif turn is HostSignal.FINE:
            host.fine()
        again = granted or (passing and job.retries > 0 and not (turn is HostSignal.BUSY and host.humble))
        self._place(host)
        if not again:
            self.open -= 1
            self._ring()
            return True
        pause = 0.0 if granted else RETRY_WAIT_S * 2 ** (self.config.retries - job.retries) * (1 + job.jitter() / 4)
        job.patience, job.retries = job.patience - granted, job.retries - (not granted)
        job.again()
        self._queue(job, now + pause if pause else None)
        return False

    def _queue(self, job: FetchTask, at: float | None = None) -> None:
        host = self.host(job.url)
        if at is None:
            host.waiting.append(job)
        else:
            self.numbers += 1
            heapq.heappush(host.later, (at, self.numbers, job))
        self._place(host)

    def _place(self, host: Host) -> None:
        """Put a host where it belongs in the order of turns."""
        at = host.ready_at()
        if at == host.placed_at:
            return
        self.numbers += 1
        host.entry, host.placed_at = self.numbers, at
        if at is not None:
            heapq.heappush(self.ready, (at, host.entry, host))
            self._ring()

    def _ring(self) -> None:
        if self.alarm is not None and not self.alarm.done():
            self.alarm.set_result(None)

    async def _change(self, seconds: float | None) -> None:
        """Wait until something changes, or so many seconds."""
        loop = asyncio.get_running_loop()
        self.alarm = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._ring)
        try:
            await self.alarm
        finally:
            self.alarm = None
            if timer is not None:
                timer.cancel()


def retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date as seen from the answer's `date`.
    None: nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = _moment(text)
        return max(0.0, (until - _moment(date or "")).total_seconds())
    except ValueError:
        pass
    try:
        return max(0.0, (_moment(text) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(str(error)) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def signal_of(reason: str | None, wait_s: float | None, passing: bool) -> HostSignal:
    """Return what an attempt's end says of its host. `wait_s`: what Retry-After said; `passing`: of a Refusal."""
    if reason == "http_429" or (reason == "http_503" and wait_s is not None) or passing:
        return HostSignal.BUSY
    if reason in ("connection", "timeout") or (reason or "").startswith("http_5"):
        return HostSignal.FAILED
    return HostSignal.FINE
