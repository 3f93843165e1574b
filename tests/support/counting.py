"""A behaviour of the hostile server that counts what each site is asked for, and how much at once."""

import threading
import time
from collections import Counter, defaultdict

from tests.support.hostile_server import GOOD, Exchange


class Counting:
    """Answers well after `seconds`; knows when each site (the last two labels) was asked, and its most at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.asked: dict[str, list[float]] = defaultdict(list)

    def __call__(self, x: Exchange) -> None:
        site = ".".join(x.fields["host"].split(".")[-2:])
        with self.lock:
            self.asked[site].append(time.monotonic())
            self.now[site] += 1
            self.most[site] = max(self.most[site], self.now[site])
        time.sleep(self.seconds)
        with self.lock:
            self.now[site] -= 1
        x.answer(b"" if x.target.endswith((".txt", ".json")) else GOOD)

    def asked_of(self, site: str) -> list[float]:
        """Return when a site was asked, in seconds of the monotonic clock."""
        return sorted(self.asked[site])


def most_within(moments: list[float], seconds: float) -> int:
    """Return the largest number of moments within a window of so many seconds."""
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)
