"""Keep the deadline of each URL, and let it stand while a file of its site waits for another site's turn."""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

from filters.fetch.hosts import FetchTask


def origin_of(url: str) -> str:
    """Return a URL's scheme, host and port, as it writes them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Clock:
    """The clock of one job: it runs down what is left of its deadline, but for the time that it stands."""

    def __init__(self, job: FetchTask, limit: asyncio.Timeout) -> None:
        """Start it; `limit`: the timeout that ends at the job's deadline."""
        self.job, self.limit, self.started = job, limit, time.monotonic()
        self.since: float | None = None

    def stop(self) -> None:
        """Let it stand."""
        if self.since is None and not self.limit.expired():
            self.since = time.monotonic()
            self.left = (self.limit.when() or self.since) - self.since
            self.limit.reschedule(None)

    def go(self) -> None:
        """Let it run on."""
        if self.since is not None:
            now = time.monotonic()
            self.started, self.job.taken_at = self.started + now - self.since, self.job.taken_at + now - self.since
            self.since = None
            self.limit.reschedule(now + self.left)


class Clocks:
    """The clocks of all jobs on their way, by the origin whose files they wait for."""

    def __init__(self) -> None:
        self.waiting: defaultdict[str, set[Clock]] = defaultdict(set)
        self.standing: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, job: FetchTask) -> AsyncIterator[Clock]:
        """Raise TimeoutError where a job takes longer than is left to it, and take from that what it takes."""
        async with asyncio.timeout(job.left_s) as limit:
            clock = Clock(job, limit)
            try:
                yield clock
            finally:
                job.left_s -= time.monotonic() - clock.started

    @contextlib.contextmanager
    def waits(self, clock: Clock) -> Iterator[None]:
        """Let a clock stand with its origin, inside."""
        origin = origin_of(clock.job.url)
        self.waiting[origin].add(clock)
        if self.standing[origin]:
            clock.stop()
        try:
            yield
        finally:
            clock.go()
            self.waiting[origin].discard(clock)
            if not self.waiting[origin]:
                del self.waiting[origin]

    @contextlib.contextmanager
    def stand(self, origin: str) -> Iterator[None]:
        """Let the clocks of all who wait for an origin's files stand, inside."""
        self.standing[origin] += 1
        for clock in self.waiting.get(origin, ()):
            clock.stop()
        try:
            yield
        finally:
            self.standing[origin] -= 1
            if not self.standing[origin]:
                del self.standing[origin]
                for clock in self.waiting.get(origin, ()):
                    clock.go()
