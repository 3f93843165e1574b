"""Ask again whether pictures are still allowed: what their sites' files say, and the headers of an answer whose body is
not taken."""

import asyncio
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from filters.fetch.body import Body
from filters.fetch.config import FetchConfig
from filters.fetch.download import Downloader, Outcome
from filters.fetch.faults import Fault, Refusal
from filters.fetch.hosts import FetchTask
from filters.fetch.messages import Answer, Request
from filters.fetch.politeness import HostQueues
from filters.fetch.sites import SiteCache
from filters.fetch.url import UrlFault, normalise

NO_HEAD = {400, 403, 405, 500, 501}
"""Statuses with which servers answer a HEAD that they do not know, and a GET otherwise."""


class HeaderDownloader(Downloader):
    """A Downloader that takes no body: a HEAD for each URL, or a GET that is let go of behind its header.

    An outcome without a reason has an empty body. A refusal that may turn out otherwise in a moment has no receipt.
    """

    async def request(self, job: FetchTask) -> Outcome:
        """Return the outcome of one request of a job, as a Downloader does."""
        outcome = await super().request(job)
        if outcome.passing:
            outcome.receipt = None
        return outcome

    async def _hop(self, url: str, outcome: Outcome) -> Body | str:
        for method in ("HEAD", "GET"):
            async with self._ask(url, method) as response:
                outcome.status = response.status
                if method == "HEAD" and response.status in NO_HEAD:
                    continue
                return self._moved(response) or Body(1)
        raise AssertionError("a GET has an answer or raises")


def site_answers(requests: Sequence[Request], config: FetchConfig, memory: SiteCache) -> Iterator[Answer]:
    """Yield for each request what its site's robots.txt and tdmrep.json say of its URL; the URL is not asked for.

    A site that cannot be reached is asked once. Raises OSError where this machine is at fault.
    """
    yield from asyncio.run(_site_answers(requests, config, memory))


async def _site_answers(requests: Sequence[Request], config: FetchConfig, memory: SiteCache) -> list[Answer]:
    slots, down = asyncio.Semaphore(config.concurrency), dict[str, Fault]()
    async with Downloader(config, memory, HostQueues(config)) as downloader:

        async def one(request: Request) -> Answer:
            async with slots:
                return await _site_answer(downloader, request, down)

        return list(await asyncio.gather(*map(one, requests)))


async def _site_answer(downloader: Downloader, request: Request, down: dict[str, Fault]) -> Answer:
    try:
        url = normalise(request.url)
    except UrlFault as fault:
        return Answer(request.uid, fault.reason, None, None, request.url, fault.detail)
    site = urlsplit(url).netloc
    try:
        if site in down:
            raise down[site]
        await downloader.sites.check(url)
    except Refusal as refusal:
        receipt = None if refusal.passing else refusal.receipt
        return Answer(request.uid, refusal.reason, None, None, url, refusal.detail, receipt)
    except Fault as fault:
        down[site] = fault
        return Answer(request.uid, fault.reason, None, None, url, fault.detail)
    return Answer(request.uid, None, b"", None, url)
