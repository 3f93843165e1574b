"""Stop on Ctrl-C: at once outside workers' start, and never twice."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from manifests.guard import Guard


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block with KeyboardInterrupt, also where a library caught it on the way.

    An import that is cut short can swallow the interrupt, or turn it into another error.
    """
    seen: list[int] = []

    def interrupt(signum: int, frame: Any) -> None:
        seen.append(signum)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Guard() as guard:
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if seen:
        raise KeyboardInterrupt from guard.error
    if guard.error is not None:
        raise guard.error


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Hold SIGINT back from this thread while the block runs; one that came meanwhile arrives after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
