"""Ask again whether pictures are still allowed: what their sites' files say, and the headers of an answer whose body is
not taken."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from filters.fetch.body import Body
from filters.fetch.client import fetch_all
from filters.fetch.clock import origin_of
from filters.fetch.config import FetchConfig
from filters.fetch.download import Downloader, Outcome
from filters.fetch.faults import Fault, Refusal
from filters.fetch.hosts import FetchTask
from filters.fetch.messages import Answer, Request
from filters.fetch.politeness import HostQueues
from filters.fetch.sites import SiteCache
from filters.fetch.url import UrlFault, normalise
from manifests.retry_after import retry_after

TOLD = {200, 203}
"""Statuses of a HEAD whose headers are those of the picture; after others a GET tells."""
NO_HEAD = {405, 501}
"""Statuses that say that a server knows no HEAD: its other URLs are asked with a GET at once."""
UNREACHABLE = {"dns", "tls", "blocked_address", "bad_url"}
"""Faults of a HEAD that a GET would meet too."""
HEAD_PART = 3  # a HEAD takes at most this part of a deadline, so that a GET may come after one that hangs


class HeaderDownloader(Downloader):
    """A Downloader that takes no body: a HEAD for each URL, or a GET that is let go of behind its header.

    An outcome without a reason has an empty body. A refusal that may turn out otherwise in a moment has no receipt.
    """

    def __init__(self, config: FetchConfig, memory: SiteCache, traffic: HostQueues, held: bool = False) -> None:
        """Fix the settings, as a Downloader does."""
        super().__init__(config, memory, traffic, held)
        self.headless: set[str] = set()
        """Sites (host and port) that know no HEAD."""

    async def request(self, job: FetchTask) -> Outcome:
        """Return the outcome of one request of a job, as a Downloader does."""
        outcome = await super().request(job)
        if outcome.passing:
            outcome.receipt = None
        return outcome

    async def _hop(self, url: str, outcome: Outcome) -> Body | str:
        site = urlsplit(url).netloc
        if site not in self.headless:
            if await self._told(url, site):
                outcome.status = 200
                return Body(1)
            self._count(url)
        async with self._ask(url) as response:
            outcome.status = response.status
            outcome.wait_s = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
            return self._moved(response) or Body(1)

    async def _told(self, url: str, site: str) -> bool:
        """Say whether the answer to a HEAD lets a URL pass; one that fails or says something else tells nothing. Raises
        Refusal."""
        try:
            async with asyncio.timeout(self.config.deadline_s / HEAD_PART), self._ask(url, "HEAD") as response:
                if response.status in TOLD:
                    self._obey(response)
                    return True
                if response.status in NO_HEAD:
                    self.headless.add(site)
        except TimeoutError:
            self.headless.add(site)
        except Refusal:
            raise
        except Fault as fault:
            if fault.reason in UNREACHABLE:
                raise
        return False


class SiteDownloader(Downloader):
    """A Downloader that asks for sites' files alone: a job stands for all requests of one origin.

    `groups`: those requests, by the uid of the one that is asked for; `answers` gets what their site says of each.
    """

    def __init__(
        self,
        config: FetchConfig,
        memory: SiteCache,
        traffic: HostQueues,
        held: bool = False,
        *,
        groups: Mapping[bytes, Sequence[Request]],
        answers: dict[bytes, list[Answer]],
    ) -> None:
        """Fix the settings, as a Downloader does."""
        super().__init__(config, memory, traffic, held)
        self.groups, self.answers = groups, answers
        self.paid: set[str] = set()
        """Origins whose job has had a turn, and no request yet."""

    async def request(self, job: FetchTask) -> Outcome:
        """Return the outcome of asking for a site's files: without a reason where they came."""
        outcome = Outcome(final_url=job.url)
        job.attempts += 1
        self.paid.add(origin_of(job.url))
        try:
            async with self.clocks.of(job) as clock:
                with self.clocks.waits(clock):
                    self.answers[job.request.uid] = [await self._said(one) for one in self.groups[job.request.uid]]
        except TimeoutError:
            outcome.reason, outcome.detail = "timeout", f"not done after {self.config.deadline_s:g} s"
        except Fault as fault:
            outcome.reason, outcome.detail = fault.reason, fault.detail
            outcome.passing = isinstance(fault, Refusal)
        return outcome

    async def _said(self, request: Request) -> Answer:
        """Return what a URL's site says of it. Raises Fault, and Refusal where that may turn out otherwise in a
        moment."""
        url = normalise(request.url)
        try:
            delay_s = await self.sites.check(url)
        except Refusal as refusal:
            if refusal.passing:
                raise
            return Answer(request.uid, refusal.reason, None, None, url, refusal.detail, refusal.receipt)
        self.traffic.learned(url, delay_s)
        return Answer(request.uid, None, b"", None, url)

    def _count(self, url: str) -> None:
        """Count a request, but the first one of a job: its turn was that."""
        if origin_of(url) in self.paid:
            self.paid.discard(origin_of(url))
        else:
            super()._count(url)


def site_answers(requests: Sequence[Request], config: FetchConfig, memory: SiteCache) -> Iterator[Answer]:
    """Yield for each request what its site's robots.txt and tdmrep.json say of its URL; the URL is not asked for.

    Sites are asked as `client.fetch_all` asks, under their pace, and each once; one that cannot be reached is that for
    all its requests. Raises OSError where this machine is at fault.
    """
    origins: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        try:
            origins[origin_of(normalise(request.url))].append(request)
        except UrlFault as fault:
            yield Answer(request.uid, fault.reason, None, None, request.url, fault.detail)
    groups = {group[0].uid: group for group in origins.values()}
    answers: dict[bytes, list[Answer]] = {}
    kind = partial(SiteDownloader, groups=groups, answers=answers)
    for answer in fetch_all([group[0] for group in groups.values()], config, memory, kind=kind):
        found = answers.get(answer.uid, []) if answer.reason is None else []
        yield from found or (replace(answer, uid=one.uid, receipt=None) for one in groups[answer.uid])


def header_answers(requests: Sequence[Request], config: FetchConfig, memory: SiteCache) -> Iterator[Answer]:
    """Yield for each request whether its site and the headers of its URL let it pass; no picture is taken.

    Raises OSError where this machine is at fault.
    """
    return fetch_all(requests, config, memory, kind=HeaderDownloader)
