"""Decide which URL goes next: so many connections and requests a second for each site, and rest for a host that asks
for it or fails.

URLs wait in a queue for each host, as plain objects: a host that must wait holds nobody else up, and ten thousand URLs
of one host are no more tasks than its connections. A URL's reason is the one that its own attempt ended with, but for
those of a host that is down: they are not asked for.
"""

import asyncio
import hashlib
import heapq
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filters.fetch.budget import next_turn
from filters.fetch.config import FetchConfig
from filters.fetch.signals import HostSignal
from filters.fetch.site_name import site_of

if TYPE_CHECKING:
    from filters.fetch.budget import SharedBudget
    from filters.fetch.messages import Request


PATIENCE = 2
"""Further attempts of a URL whose host asked for patience (429, 503 with Retry-After), on top of `fetch.retries`."""
FIRST_WAIT_S = 1.0  # seconds after a first 429 without Retry-After; doubled each time
RETRY_WAIT_S = 0.5  # seconds before a first retry of a passing fault; doubled each time
DEAD_DEADLINES = 3
"""Deadlines that a host may cost without an answer before it counts as down, however few its faults are."""


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
    taken_at: float = 0.0
    down: bool = False  # its host is: it is not asked for any more

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
    name: str
    site: "Site"
    waiting: deque[FetchTask] = field(default_factory=deque)
    later: list[tuple[float, int, FetchTask]] = field(default_factory=list)
    active: int = 0
    began: float = 0.0  # when the first job started
    ended: int = 0
    met: bool = False  # whether its rules are known: until then one job at a time
    humble: bool = False  # told to stay away for longer than we wait: one at a time
    spent: bool = False  # no time left for rests: what waits is asked for at half the connections
    asked_at: float = 0.0
    next_at: float = 0.0  # of its Crawl-delay
    rest_until: float = 0.0
    rested_s: float = 0.0
    delay_s: float = 0.0
    faults: int = 0
    openings: int = 0
    well: bool = False  # a URL of it has ended well: whatever comes later, it is not down
    answered: bool = False  # it has said something, if only that it cannot
    down: bool = False
    failed_at: float = 0.0
    lost_s: float = 0.0  # spent on its faults, together
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
        if self.delay_s:
            self.next_at = next_turn(self.next_at, now, self.delay_s)
        job = self.waiting.popleft()
        job.taken_at = now
        self.began = self.began or now
        return job

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
        self.well = True

    def busy(self, now: float, seconds: float | None, jitter: float) -> bool:
        """Note that it asked for patience; say whether it is granted."""
        wait = FIRST_WAIT_S * 2 ** min(self.level, 20) if seconds is None else seconds
        if not self.rest(now, wait * (1 + jitter / 4)):
            self.humble = True
            return False
        self.level += 1
        return True

    def failed(self, now: float, since: float) -> None:
        """Note a fault of the host, in a request that began at `since`. After `breaker_faults` in a row it rests, then
        one job at a time tries it, each rest twice as long.

        One that has never answered is down at once, one that has answered but never well after its first rest.
        """
        self.faults += 1
        self.lost_s, self.failed_at = self.lost_s + now - max(since, self.failed_at), now
        lost = not self.answered and self.lost_s > (DEAD_DEADLINES - 0.1) * self.config.deadline_s
        if (self.faults < self.config.breaker_faults and not lost) or now < self.rest_until or self.spent:
            return
        if not self.well and (not self.answered or self.openings or not self.config.max_wait_s):
            self.down = True
            return
        if self.rest(now, self.config.breaker_rest_s * 2 ** min(self.openings, 20)):
            self.openings += 1
        else:
            self.spent = True


@dataclass(slots=True, eq=False)
class Site:
    """The hosts of one owner: they share its pace and connections. Times are seconds of the monotonic clock."""

    config: FetchConfig
    name: str
    hosts: list[tuple[float, int, Host]] = field(default_factory=list)
    """Hosts by the time from when they may be asked; those whose number is not theirs any more are passed over."""
    active: int = 0
    next_at: float = 0.0
    entry: int = 0
    placed_at: float | None = None

    def first(self) -> Host | None:
        """Return the host whose turn is next."""
        while self.hosts and self.hosts[0][1] != self.hosts[0][2].entry:
            heapq.heappop(self.hosts)
        return self.hosts[0][2] if self.hosts else None

    def ready_at(self) -> float | None:
        """Return from when a job may start, or None where none may before another ends."""
        if self.active >= self.config.host_connections or self.first() is None:
            return None
        return max(self.next_at, self.hosts[0][0])


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
            found = self.hosts[name] = Host(self.config, name, site)
            found.met = not self.config.asks_first
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
            turn = self.budget.take(site.name, host.name, pause, self.config.host_connections)
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
        if self.budget is not None and host.delay_s:
            self.budget.rest(host.name, host.next_at)
        self._place(host)
        self._place_site(site)
        return job

    def spent(self, url: str) -> None:
        """Count a request that is made beside that of a job: for a site's files."""
        site, pause = self.host(url).site, 1 / self.config.host_rate
        if self.budget is not None:
            site.next_at = self.budget.spend(site.name, pause)
        else:
            site.next_at = next_turn(site.next_at, time.monotonic(), pause)
        self._place_site(site)

    def learned(self, url: str, delay_s: float | None) -> None:
        """Note that a host's rules are known, and the pause between requests that it asks for."""
        host = self.host(url)
        if delay_s:
            pause = min(delay_s, self.config.max_crawl_delay_s)
            host.next_at = max(host.next_at, host.asked_at + pause)
            host.delay_s = max(host.delay_s, pause)
            if self.budget is not None:
                self.budget.rest(host.name, host.next_at)
        host.answered = True
        host.met = True
        self._place(host)

    def moved(self, job: FetchTask, url: str) -> None:
        """Note that a request ended in a redirect: the job queues for where it leads."""
        host = self.host(job.url)
        self._end(host)
        host.fine()
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
        if self.budget is not None and host.rest_until > rest_until:
            self.budget.rest(host.name, host.rest_until)
        if host.down:
            self._drop(host)
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
            self.budget.end(host.site.name)
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
            heapq.heappush(host.site.hosts, (at, host.entry, host))
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
