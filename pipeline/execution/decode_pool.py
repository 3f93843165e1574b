"""Decode pictures in processes beside a worker, a batch ahead."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

Pair = tuple[bytes, bytes]
"""uid, JPEG."""
Work = Callable[[bytes], Any]
"""What becomes of a JPEG in a decoder: a function that can be sent to another process."""
Opening = Callable[[], list[Any]]
"""Waits for pictures: each an RGB array (H, W, 3) uint8, or the reason why there is none, in order."""


class Decoders:
    """Processes that decode pictures for a worker, started when first asked; none, and the worker decodes them itself.

    A picture that kills its decoder is decoded again by the worker, so that the death is charged to the rows in hand.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def ahead(self, some: Iterable[list[Pair]], work: Work) -> Iterator[tuple[list[Pair], Opening]]:
        """Yield each batch with its opening; the next batch is being decoded by then, while models work on this one."""
        before = None
        for batch in some:
            begun = batch, self.begin([jpeg for _, jpeg in batch], work)
            if before:
                yield before
            before = begun
        if before:
            yield before

    def begin(self, jpegs: list[bytes], work: Work) -> Opening:
        """Start the work on each JPEG, and return what waits for it; without processes the worker does it when it is
        called."""
        if not self.count or not jpegs:
            return lambda: _done(work, jpegs)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.count, mp_context=get_context("spawn"), initializer=_end_with_parent)
        pool, each = self._pool, max(1, len(jpegs) // (4 * self.count))
        try:
            begun = [pool.submit(_done, work, jpegs[start : start + each]) for start in range(0, len(jpegs), each)]
        except BrokenProcessPool:
            begun = []

        def wait() -> list[Any]:
            """Return what became of each JPEG, in order; the worker does it all where a decoder has died."""
            try:
                if begun:
                    return [outcome for future in begun for outcome in future.result()]
                return self._alone(pool, jpegs, work)
            except BrokenProcessPool:
                return self._alone(pool, jpegs, work)

        return wait

    def _alone(self, broken: ProcessPoolExecutor, jpegs: list[bytes], work: Work) -> list[Any]:
        if self._pool is broken:
            self.close()
        return _done(work, jpegs)

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _end_with_parent() -> None:
    """End this decoder when its worker is gone, however it went: a killed worker leaves nobody behind."""
    parent = parent_process()

    def watch() -> None:
        """Wait for the worker's end."""
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _done(work: Work, jpegs: list[bytes]) -> list[Any]:
    return [work(jpeg) for jpeg in jpegs]
