"""Decide which URL goes next: so many connections and requests a second for each site, and rest for a host that asks
for it or fails.

URLs wait in a queue for each host, as plain objects: a host that must wait holds nobody else up, and ten thousand URLs
of one host are no more tasks than its connections. A URL's reason is the one that its own attempt ended with, but for
those of a host that is down: they are not asked for.
"""

import asyncio
import contextlib
import heapq
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filters.fetch.budget import ASK_AGAIN_S, next_turn
from filters.fetch.config import FetchConfig
from filters.fetch.hosts import FetchTask, Host, Site
from filters.fetch.signals import HostSignal
from filters.fetch.site_name import site_of

if TYPE_CHECKING:
    from filters.fetch.budget import SharedBudget

RETRY_WAIT_S = 0.5  # seconds before a first retry of a passing fault; doubled each time


class HostQueues:
    """All hosts of one shard, and whose turn it is. To be used within one event loop.

    `budget`: what this process shares with others that fetch at the same time; None where it is alone.
    """

    def __init__(self, config: FetchConfig, budget: "SharedBudget | None" = None) -> None:
        """Start with nothing."""
        self.config, self.budget = config, budget
        self.hosts: dict[str, Host] = {}
        self.sites: dict[str, Site] = {}
        self.ready: list[tuple[float, int, Site]] = []
        self.dropped: deque[FetchTask] = deque()
        self.numbers = 0
        self.open = 0
        self.slots: asyncio.Semaphore | None = None
        """Of all requests on their way, where their number is bounded."""
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
            owner = site_of(name)
            site = self.sites.setdefault(owner, Site(self.config, owner))
            found = self.hosts[name] = Host(self.config, name, site, len(self.hosts))
            found.met, found.down = not self.config.asks_first, site.down
        return found

    async def next(self) -> FetchTask | None:
        """Wait for the next job that may start, or that is `down`; None where there is none and will be none."""
        while self.open:
            if self.dropped:
                self.open -= 1
                return self.dropped.popleft()
            while self.ready and self.ready[0][1] != self.ready[0][2].entry:
                heapq.heappop(self.ready)
            now = time.monotonic()
            if self.ready and self.ready[0][0] <= now:
                job = self._take(heapq.heappop(self.ready)[2], now)
                if job is not None:
                    return job
            else:
                await self._change(self.ready[0][0] - now if self.ready else None)
        return None

    def _take(self, site: Site, now: float) -> FetchTask | None:
        """Start the next job of a site; return None where the budget that is shared does not allow it yet."""
        site.placed_at = None
        host = site.first()
        assert host is not None
        pause = 1 / self.config.host_rate
        if self.budget is not None:
            connections = None if site.idle else self.config.host_connections
            turn = self.budget.take(site.name, host.name, pause, connections, host.delay_s)
            site.next_at = turn.at
            if not turn.granted:
                host.next_at = max(host.next_at, turn.host_at)
                self._place(host)
                self._place_site(site)
                return None
        else:
            site.next_at = next_turn(site.next_at, now, pause)
        site.active += 1
        job = host.take(now)
        self._place(host)
        self._place_site(site)
        return job

    @property
    def most_idle(self) -> int:
        """Return how many connections to a site may stay open for a next request: where others fetch too, this
        process's part, so that none of them waits for one that is not used."""
        return self.config.host_connections // (self.budget.lanes if self.budget else 1)

    def is_full(self, site: str, idle: int) -> bool:
        """Say whether one of a site's idle connections must end before another is opened."""
        known = self.sites.get(site)
        return known is not None and (self.budget is not None or known.active + idle > self.config.host_connections)

    def kept(self, site: str, idle: int) -> None:
        """Note how many connections to a site are idle."""
        known = self.sites.get(site)
        if known is not None:
            known.idle = idle
            if self.budget is not None:
                self.budget.keep(site, known.active + idle)

    @contextlib.asynccontextmanager
    async def visit(self, url: str) -> AsyncIterator[None]:
        """Wait for the turn of a request to a site that nobody's turn is of: a file of another site has led there. It
        takes no slot of others while it waits, and at most `host_connections` such requests are on their way, over all
        processes that share a budget. They are counted apart from jobs, which wait for them."""
        if self.slots is not None:
            self.slots.release()
        site = self.host(url).site
        async with site.visitors:
            await self._let_in(site)
            try:
                await asyncio.sleep(self.spent(url))
                if self.slots is not None:
                    await self.slots.acquire()
                yield
            finally:
                site.visiting -= 1
                if self.budget is not None:
                    self.budget.keep(f"visit {site.name}", site.visiting)

    async def _let_in(self, site: Site) -> None:
        """Wait until the processes that share a budget have fewer than `host_connections` visitors at a site together,
        at most a deadline's time."""
        until = time.monotonic() + self.config.deadline_s
        name = f"visit {site.name}"
        while self.budget is not None and time.monotonic() < until:
            if self.budget.take(name, name, 0.0, self.config.host_connections).granted:
                break
            await asyncio.sleep(ASK_AGAIN_S)
        site.visiting += 1

    def spent(self, url: str) -> float:
        """Count a request that is made beside that of a job: for a site's files. Return the seconds until its turn."""
        site, pause = self.host(url).site, 1 / self.config.host_rate
        if self.budget is not None:
            site.next_at = self.budget.spend(site.name, pause)
        else:
            site.next_at = next_turn(site.next_at, time.monotonic(), pause)
        self._place_site(site)
        return max(0.0, site.next_at - pause - time.monotonic())

    def learned(self, url: str, delay_s: float | None) -> None:
        """Note that a host's rules are known, and the pause between requests that it asks for."""
        host = self.host(url)
        if delay_s:
            pause = min(delay_s, self.config.max_crawl_delay_s)
            host.next_at = max(host.next_at, host.asked_at + pause)
            host.delay_s = max(host.delay_s, pause)
            if self.budget is not None:
                self.budget.rest(host.name, host.next_at, host.delay_s)
        host.answered = host.site.answered = True
        host.met = True
        self._place(host)

    def moved(self, job: FetchTask, url: str) -> None:
        """Note that a request ended in a redirect: the job queues for where it leads. One that stays on its host has
        told nothing yet but that something answers there."""
        host = self.host(job.url)
        self._end(host)
        host.answered = host.site.answered = True
        if self.host(url) is not host:
            host.led_on()
        self._place(host)
        job.url, job.hops = url, job.hops + 1
        self._queue(job)

    def ended(self, job: FetchTask, turn: HostSignal, passing: bool, wait_s: float | None = None) -> bool:
        """Note that an attempt ended; return whether its outcome stands. If not, the job is queued once more.

        `passing`: whether a second attempt may cure the fault; `wait_s`: what Retry-After said.
        """
        host, now = self.host(job.url), time.monotonic()
        self._end(host)
        host.met = True
        rest_until = host.rest_until
        granted = turn is HostSignal.BUSY and host.busy(now, wait_s, job.jitter()) and job.patience > 0
        if turn is HostSignal.FAILED:
            host.answered = host.answered or (job.status or 0) >= 500
            host.failed(now, job.taken_at)
        elif turn is HostSignal.FINE:
            host.fine()
        if turn is HostSignal.BUSY or (turn is HostSignal.FINE and job.status is not None):
            host.site.answered = True
        if self.budget is not None and host.rest_until > rest_until:
            self.budget.rest(host.name, host.rest_until)
        for other in list(self.hosts.values()) if host.site.down else [host]:
            if other.site is host.site and (other.down or host.site.down):
                other.down = True
                self._drop(other)
        again = not host.down and (
            granted or (passing and job.retries > 0 and not (turn is HostSignal.BUSY and host.humble))
        )
        self._place(host)
        if not again or host.down:
            self.open -= 1
            self._ring()
            return True
        pause = 0.0 if granted else RETRY_WAIT_S * 2 ** (self.config.retries - job.retries) * (1 + job.jitter() / 4)
        job.patience, job.retries = job.patience - granted, job.retries - (not granted)
        job.again()
        self._queue(job, now + pause if pause else None)
        return False

    def _end(self, host: Host) -> None:
        """Give back what a job had of its site."""
        host.active, host.ended = host.active - 1, host.ended + 1
        host.site.active -= 1
        if self.budget is not None:
            self.budget.keep(host.site.name, host.site.active + host.site.idle)
        self._place_site(host.site)

    def _drop(self, host: Host) -> None:
        """Let all that waits for a host go: it is down."""
        for job in (*host.waiting, *(job for _, _, job in host.later)):
            job.down = True
            self.dropped.append(job)
        host.waiting.clear()
        host.later.clear()
        self._place(host)
        self._ring()

    def _queue(self, job: FetchTask, at: float | None = None) -> None:
        host = self.host(job.url)
        if host.down:
            job.down = True
            self.dropped.append(job)
            self._ring()
            return
        if at is None:
            host.waiting.append(job)
        else:
            self.numbers += 1
            heapq.heappush(host.later, (at, self.numbers, job))
        self._place(host)

    def _place(self, host: Host) -> None:
        """Put a host where it belongs in the order of its site's turns."""
        at = host.ready_at()
        if at == host.placed_at:
            return
        self.numbers += 1
        host.entry, host.placed_at = self.numbers, at
        if at is not None:
            heapq.heappush(host.site.hosts, (at, host.rank, host.entry, host))
        self._place_site(host.site)

    def _place_site(self, site: Site) -> None:
        """Put a site where it belongs in the order of turns."""
        at = site.ready_at()
        if at == site.placed_at:
            return
        self.numbers += 1
        site.entry, site.placed_at = self.numbers, at
        if at is not None:
            heapq.heappush(self.ready, (at, site.entry, site))
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
