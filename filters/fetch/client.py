"""Fetch URLs, many at a time, and hand each answer over as it comes: a body, or the reason why there is none."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from filters.fetch.config import FetchConfig
from filters.fetch.digests import NONE
from filters.fetch.messages import Answer, Request
from filters.fetch.url import UrlFault, normalise

if TYPE_CHECKING:
    from filters.fetch.budget import Share
    from filters.fetch.download import Downloader, Outcome
    from filters.fetch.hosts import FetchTask
    from filters.fetch.politeness import HostQueues
    from filters.fetch.sites import SiteCache
    from filters.fetch.tally import Watch

    Kind = Callable[[FetchConfig, SiteCache, HostQueues, bool], Downloader]


def fetch_all(
    requests: Sequence[Request],
    config: FetchConfig,
    memory: "SiteCache | None" = None,
    *,
    held: bool = False,
    kind: "Kind | None" = None,
    share: "Share | None" = None,
    watch: "Watch | None" = None,
) -> Iterator[Answer]:
    """Yield one answer for every request, in the order in which they finish.

    The requests run in a thread of their own, so deadlines hold while the caller works on an answer. At most
    `config.concurrency` requests are in flight or wait to be taken; of each at most 1 MiB is in memory, the rest in a
    temporary file, until it is yielded; with `held` all of it is in memory, at most `config.max_bytes` each, and none
    on a disk. Works in any thread; closing the iterator early ends what is in flight.
    `memory`: what was learned of sites and names in earlier calls, in one thread at a time. `kind`: makes the
    downloader, where it is another than `download.Downloader` (those of `headers` take no body). `share`: where the
    budget of each site is kept that other processes fetch under too. `watch` is told how far it is.
    Raises ValueError for wrong settings, and OSError where this machine is at fault (disk full, no more sockets).
    """
    from filters.fetch.guard import ConnectMap, Guard

    ConnectMap.of(config.connect_to)  # wrong settings raise here, in the caller, before a thread starts
    Guard.of(config.allow_addresses)
    return _answers(_Engine(list(requests), config, memory, _Terms(held, kind, share, watch)))


def _answers(engine: "_Engine") -> Iterator[Answer]:
    engine.start()
    try:
        for _ in engine.requests:
            request, outcome, attempts = engine.next()
            digests = outcome.body.digests if outcome.body else NONE
            body = outcome.body.take() if outcome.body else None
            parts = (outcome.reason, body, outcome.status, outcome.final_url, outcome.detail, outcome.receipt, attempts)
            yield Answer(request.uid, *parts, digests)
    finally:
        engine.stop()


@dataclass(frozen=True)
class _Terms:
    """How a fetch is made beside its settings: see `fetch_all`."""

    held: bool
    kind: "Kind | None"
    share: "Share | None"
    watch: "Watch | None"


class _Engine:
    """An event loop in a thread of its own, and the queue through which outcomes come to the caller."""

    def __init__(
        self, requests: list[Request], config: FetchConfig, memory: "SiteCache | None", terms: "_Terms"
    ) -> None:
        self.requests, self.config, self.memory, self.terms = requests, config, memory, terms
        self.done: queue.SimpleQueue[tuple[Request, Outcome, int] | BaseException] = queue.SimpleQueue()
        self.answered = 0
        self.slots = asyncio.Semaphore(config.concurrency)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.main: asyncio.Task[None] | None = None
        self.thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def next(self) -> "tuple[Request, Outcome, int]":
        """Wait for the next outcome and free its slot. Raises what ended the loop."""
        item = self.done.get()
        if isinstance(item, BaseException):
            raise item
        if item[2]:  # what was never asked for took no slot
            self._tell(self.slots.release)
        return item

    def stop(self) -> None:
        """End what is in flight and wait for the thread; bodies that nobody took are let go."""
        self.ready.wait()
        if self.main is not None:
            self._tell(self.main.cancel)
        self.thread.join()
        while not self.done.empty():
            item = self.done.get()
            if not isinstance(item, BaseException) and item[1].body:
                item[1].body.close()

    def _tell(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself: nothing is left to tell
            if self.loop is not None:
                self.loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        with contextlib.ExitStack() as ending:
            ending.callback(self.ready.set)
            ending.push(self._hand_over)
            asyncio.run(self._all())

    def _hand_over(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Let `next` raise what ended the loop, whatever it is: this thread has nobody to raise it to."""
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            self.done.put(error)
        return True

    async def _all(self) -> None:
        from filters.fetch.politeness import HostQueues

        self.loop, self.main = asyncio.get_running_loop(), asyncio.current_task()
        self.ready.set()
        with contextlib.ExitStack() as closing:
            budget = closing.enter_context(contextlib.closing(self.terms.share.open())) if self.terms.share else None
            traffic = HostQueues(self.config, budget)
            traffic.slots = self.slots
            closing.enter_context(self._watched(traffic))
            await self._fetch(traffic)

    @contextlib.contextmanager
    def _watched(self, traffic: "HostQueues") -> Iterator[None]:
        """Tell the watch how far it is, every second and at the end."""
        from filters.fetch.tally import EVERY_S, Tally, slowest

        watch, loop = self.terms.watch, asyncio.get_running_loop()
        if watch is None:
            yield
            return

        timers: list[asyncio.TimerHandle] = []

        def tell() -> None:
            watch(Tally(self.answered, len(self.requests), slowest(traffic.hosts.values(), time.monotonic())))
            timers[:] = [loop.call_later(EVERY_S, tell)]

        timers.append(loop.call_later(EVERY_S, tell))
        try:
            yield
        finally:
            timers[0].cancel()
            watch(Tally(self.answered, len(self.requests)))

    async def _fetch(self, traffic: "HostQueues") -> None:
        from filters.fetch.download import Downloader
        from filters.fetch.sites import SiteCache

        kind = self.terms.kind or Downloader
        async with (
            kind(self.config, self.memory or SiteCache(), traffic, self.terms.held) as downloader,
            asyncio.TaskGroup() as group,
        ):
            await self._queue(traffic)
            while True:
                await self.slots.acquire()
                job = await traffic.next()
                if job is None:
                    return
                if job.down:
                    self._drop(job)
                    continue
                group.create_task(self._one(downloader, traffic, job))

    async def _queue(self, traffic: "HostQueues") -> None:
        """Queue every URL that may be asked for, and answer the others."""
        from filters.fetch.download import Outcome
        from filters.fetch.hosts import FetchTask

        for number, request in enumerate(self.requests):
            try:
                url = normalise(request.url)
            except UrlFault as fault:
                self._answer(request, Outcome(request.url, reason=fault.reason, detail=fault.detail), 0)
                continue
            traffic.add(FetchTask(request, url, url, self.config.deadline_s, self.config.retries))
            if number % 256 == 0:
                await asyncio.sleep(0)

    def _answer(self, request: Request, outcome: "Outcome", attempts: int) -> None:
        self.answered += 1
        self.done.put((request, outcome, attempts))

    def _drop(self, job: "FetchTask") -> None:
        """Answer a job whose host is down; one that was never asked for gives its slot back here."""
        from filters.fetch.download import Outcome

        detail = "nothing came of the URLs of this host that were asked for"
        self._answer(job.request, Outcome(job.url, job.status, "host_down", detail), job.attempts)
        if not job.attempts:
            self.slots.release()

    async def _one(self, downloader: "Downloader", traffic: "HostQueues", job: "FetchTask") -> None:
        """Make one request of a job, and either hand its outcome over or queue the job again."""
        from filters.fetch.faults import PASSING
        from filters.fetch.signals import signal_of

        outcome = await downloader.request(job)
        if outcome.location is not None:
            traffic.moved(job, outcome.location)
        elif traffic.ended(
            job, signal_of(outcome.reason, outcome.wait_s, outcome.passing), outcome.reason in PASSING, outcome.wait_s
        ):
            self._answer(job.request, outcome, job.attempts)
            return
        self.slots.release()
