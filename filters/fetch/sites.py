"""Know what each site wants of strangers: its robots.txt and tdmrep.json, asked for once and kept for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from filters.fetch.cache import Cache
from filters.fetch.clock import origin_of
from filters.fetch.config import FetchConfig
from filters.fetch.faults import Fault, Refusal
from filters.fetch.optout import MAX_TDM_BYTES, Receipt, TdmRules, robots_opt_out
from filters.fetch.robots import MAX_BYTES, RobotsRules, agent_names, readings

KEPT_S = 86_400  # RFC 9309: no longer than a day
UNSURE_S = {"robots": 1, "tdm": 300}  # seconds after which a file that could not be had is asked for again
ENTRIES, SIZE = 50_000, 64 << 20  # sites remembered, and bytes that their rules may take together
IN_PLACE = 1 << 15  # bytes of a file that is parsed without a thread
TDM_PATH = "/.well-known/tdmrep.json"
ASTRAY = {"too_many_redirects", "blocked_scheme", "bad_response", "blocked_address"}
"""Ends of a chase through redirects that are no failure of the network: there is no file then, as with a 404 (RFC 9309,
2.3.1)."""

Rules = TypeVar("Rules")


def _nothing(url: str) -> bool:
    return False


@dataclass
class SiteCache:
    """What was learned of sites and names; it may serve one shard after another, within one thread at a time.

    `bars`: tells of a canonical URL whether lists or tombstones name it, for where redirects lead.
    """

    robots: Cache[RobotsRules | Receipt] = field(default_factory=lambda: Cache(ENTRIES, SIZE))
    tdm: Cache[TdmRules] = field(default_factory=lambda: Cache(ENTRIES, SIZE))
    names: Cache[Any] = field(default_factory=lambda: Cache(ENTRIES))
    bars: Callable[[str], bool] = _nothing


@dataclass(frozen=True)
class Page:
    """What came of asking for a site's file: the first bytes of its body, or a fault; `moved`: after redirects."""

    body: bytes = b""
    fault: Fault | None = None
    moved: bool = False

    @property
    def none_there(self) -> bool:
        """Say whether the fault means that the site has no such file."""
        reason = self.fault.reason if self.fault else ""
        return (
            reason == "empty_body"
            or (reason.startswith(("http_3", "http_4")) and reason != "http_429")
            or (self.moved and reason in ASTRAY)
        )


Ask = Callable[[str, int], Awaitable[Page]]
"""Ask for a URL, for at least so many bytes of it where there are more."""


class Sites:
    """The sites of one shard. `ask` is the way to the network."""

    def __init__(self, config: FetchConfig, memory: SiteCache, ask: Ask) -> None:
        self.config, self.memory, self.ask = config, memory, ask
        self.names = agent_names(config.user_agent)
        self.under_way: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def check(self, url: str) -> float | None:
        """Let a URL pass and return the Crawl-delay of its site in seconds, if there is one.

        Raises Refusal where its site refuses it, and Fault where the site could not be reached: then this was the URL's
        attempt.
        """
        origin, paths = origin_of(url), readings(url)
        rules = await self._rules(origin)
        for path in paths:
            if self.config.robots and (line := rules.refusal(path)):
                raise Refusal("robots", Receipt.of("robots.txt", line))
            if receipt := robots_opt_out(rules, path, self.config.opt_outs):
                raise Refusal("opted_out", receipt)
        if (
            "tdmrep" in self.config.opt_outs
        ):  # whatever robots.txt says of this path: a site's policy is no crawl's page
            tdm = await self._once("tdm", origin, self.memory.tdm, self._tdm)
            for path in paths:
                if line := tdm.refusal(path):
                    raise Refusal("opted_out", Receipt.of("tdmrep.json", line))
        return rules.delay_s

    async def _rules(self, origin: str) -> RobotsRules:
        """Return what a site's robots.txt says. Raises Refusal and Fault where it has to be obeyed and is not to be
        had."""
        if not self.config.reads_robots:
            return RobotsRules()
        try:
            rules = await self._once("robots", origin, self.memory.robots, self._robots)
        except Fault:
            if self.config.robots:
                raise
            return RobotsRules()
        if isinstance(rules, RobotsRules):
            return rules
        if self.config.robots:
            raise Refusal("robots", rules, passing=True)
        return RobotsRules()

    async def _once(self, kind: str, origin: str, cache: Cache[Rules], get: Callable[[str], Awaitable[Rules]]) -> Rules:
        """Return what is known of a site; those who ask while it is being asked for wait for the same answer."""
        known = cache.get(origin)
        if known is not None:
            return known
        key = (kind, origin)
        if key not in self.under_way:
            self.under_way[key] = task = asyncio.ensure_future(get(origin))
            task.add_done_callback(lambda _: self.under_way.pop(key, None))
        found: Rules = await asyncio.shield(self.under_way[key])
        return found

    async def _robots(self, origin: str) -> RobotsRules | Receipt:
        page = await self.ask(f"{origin}/robots.txt", MAX_BYTES)
        rules: RobotsRules | Receipt = RobotsRules()
        kept_s, fault = KEPT_S, page.fault
        if fault is None:
            rules = await _parsed(RobotsRules.of, page.body, self.names)
        elif fault.reason.startswith("http_5") and (page.moved or await self._alive(origin)):
            value = f"not to be had ({fault.reason}), which forbids all (RFC 9309)"
            rules, kept_s = Receipt.of("robots.txt", value), UNSURE_S["robots"]
        elif not page.none_there:
            raise Fault(fault.reason, f"robots.txt: {fault.detail}", fault.is_http)
        elif self.config.robots_4xx == "refuse" and fault.reason.startswith("http_"):
            rules = RobotsRules.forbidding_all(f'answered {fault.reason}, and fetch.robots_4xx = "refuse"')
        self.memory.robots.put(origin, rules, kept_s, 500 + getattr(rules, "size", 0))
        return rules

    async def _alive(self, origin: str) -> bool:
        """Say whether a site answers at all, with its other file: one that is down has not refused anything."""
        page = await self.ask(f"{origin}{TDM_PATH}", 1)
        return page.fault is None or page.none_there

    async def _tdm(self, origin: str) -> TdmRules:
        page = await self.ask(f"{origin}{TDM_PATH}", MAX_TDM_BYTES)
        if page.fault and page.fault.reason == "incomplete_body":  # what it says is not known
            raise Fault(page.fault.reason, f"tdmrep.json: {page.fault.detail}", page.fault.is_http)
        rules = TdmRules() if page.fault else await _parsed(TdmRules.of, page.body)
        kept_s = KEPT_S if page.fault is None or page.none_there else UNSURE_S["tdm"]
        self.memory.tdm.put(origin, rules, kept_s, 500 + rules.size)
        return rules

    async def close(self) -> None:
        """End what is being asked for."""
        for task in list(self.under_way.values()):
            task.cancel()


async def _parsed(parse: Callable[..., Rules], body: bytes, *more: object) -> Rules:
    """Parse here what is small, and what is large in a thread, so that nobody waits for it."""
    return parse(body, *more) if len(body) < IN_PLACE else await asyncio.to_thread(parse, body, *more)
