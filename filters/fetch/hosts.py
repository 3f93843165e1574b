"""Keep what is known of a site's hosts: what waits for them, when they may be asked, and how they behave."""

import asyncio
import hashlib
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from filters.fetch.budget import next_turn
from filters.fetch.config import FetchConfig

if TYPE_CHECKING:
    from filters.fetch.messages import Request

PATIENCE = 2
"""Further attempts of a URL whose host asked for patience (429, 503 with Retry-After), on top of `fetch.retries`."""
FIRST_WAIT_S = 1.0  # seconds after a first 429 without Retry-After; doubled each time
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
    rank: int = 0  # among all hosts, by when they were met
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
        self._recovered()
        self.well = True

    def led_on(self) -> None:
        """Note that it answered with a redirect to another host: no fault, but nothing that lets it fail for ever."""
        self._recovered()
        self.lost_s = 0.0

    def _recovered(self) -> None:
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

    def _counts_for_its_site(self, now: float, since: float) -> None:
        """Count a fault's time against the site, and say that it is down where none of its hosts has answered."""
        site = self.site
        site.answered = site.answered or self.answered or self.well
        site.lost_s, site.failed_at = site.lost_s + now - max(since, site.failed_at), now
        site.down = not site.answered and site.lost_s > (DEAD_DEADLINES - 0.1) * self.config.deadline_s

    def failed(self, now: float, since: float) -> None:
        """Note a fault of the host, in a request that began at `since`. After `breaker_faults` in a row it rests, then
        one job at a time tries it, each rest twice as long.

        One that has never answered is down at once, one that has answered but never well after its first rest. A site
        of which no host has answered is down as a whole once its hosts have cost as much together.
        """
        self.faults += 1
        self._counts_for_its_site(now, since)
        self.lost_s, self.failed_at = self.lost_s + now - max(since, self.failed_at), now
        lost = not self.well and self.lost_s > (DEAD_DEADLINES - 0.1) * self.config.deadline_s
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
    hosts: list[tuple[float, int, int, Host]] = field(default_factory=list)
    """(time from when it may be asked, rank, number, host): first come, first served to the end, so that connections
    are used again. Those whose number is not theirs any more are passed over."""
    active: int = 0
    idle: int = 0
    answered: bool = False  # a host of it has said something
    down: bool = False
    failed_at: float = 0.0
    lost_s: float = 0.0  # spent on its hosts' faults, together
    next_at: float = 0.0
    entry: int = 0
    placed_at: float | None = None
    visiting: int = 0
    visitors: asyncio.Semaphore = field(init=False)  # requests that files of other sites have led here

    def __post_init__(self) -> None:
        self.visitors = asyncio.Semaphore(self.config.host_connections)

    def first(self) -> Host | None:
        """Return the host whose turn is next."""
        while self.hosts and self.hosts[0][2] != self.hosts[0][3].entry:
            heapq.heappop(self.hosts)
        return self.hosts[0][3] if self.hosts else None

    def ready_at(self) -> float | None:
        """Return from when a job may start, or None where none may before another ends."""
        if self.active >= self.config.host_connections or self.first() is None:
            return None
        return max(self.next_at, self.hosts[0][0])
