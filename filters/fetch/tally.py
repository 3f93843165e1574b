"""Say how far a fetch is, and which hosts it waits for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filters.fetch.hosts import Host

EVERY_S = 1.0
"""Seconds between two tallies."""
NAMED = 3  # hosts that a tally names


@dataclass(frozen=True)
class Tally:
    """URLs answered, of how many, and the slowest hosts: (name, URLs left, seconds since the first was asked)."""

    done: int
    total: int
    slowest: tuple[tuple[str, int, float], ...] = ()


Watch = Callable[[Tally], None]
"""Gets a tally about once a second and one at the end, in the thread that fetches; it must be quick."""


def slowest(hosts: Iterable["Host"], now: float) -> tuple[tuple[str, int, float], ...]:
    """Return the hosts whose URLs will take longest to end at the pace so far, at most NAMED of them. `now`: seconds of
    the monotonic clock."""
    known = []
    for host in hosts:
        left = len(host.waiting) + len(host.later) + host.active
        if left and host.began:
            seconds = now - host.began
            known.append((seconds / max(1, host.ended) * left, host.name, left, seconds))
    return tuple((name, left, seconds) for _, name, left, seconds in nlargest(NAMED, known))
