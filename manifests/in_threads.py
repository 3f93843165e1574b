"""Do the same with many files of a run: one after another on a disk, in threads where most of the time is waiting for a
store."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

from manifests.checksums import READERS
from manifests.store import is_remote

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2 * READERS
"""Results that wait to be taken, at most."""


def each(root: Path, do: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `do` gives for each item, in their order; of a run in a store READERS at a time, some ahead of what
    is asked for. Raises what `do` raises, for the first item in order that it fails for."""
    if not is_remote(root):
        yield from map(do, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(READERS)
    try:
        for item in items:
            waiting.append(pool.submit(copy_context().run, do, item))  # with the listings that are kept
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
