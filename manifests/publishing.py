"""Let only the run that holds a folder put files in it: what every writer asks just before its rename."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RUN_TOKEN = ".run-token"
"""In a run folder while it is held: whose run it is now. A new one at each take, so that what an earlier run left
working elsewhere (on a cluster, behind a killed client) publishes nothing any more."""


class RunOver(RuntimeError):
    """Another run has taken the folder over, or the one that this process works for has ended: nothing was put there,
    and nothing is lost."""


_ask: ContextVar[Callable[[], None] | None] = ContextVar("ask_before_publishing", default=None)
"""Bound to the work at hand, not to the process: threads of one process may work for different runs."""


@contextmanager
def published_if(ask: Callable[[], None]) -> Iterator[None]:
    """Let `ask` refuse, by raising RunOver, each file that this thread is about to publish while the block runs.

    Threads that are started within the block are not bound by it: those that publish need a block of their own.
    """
    before = _ask.get()
    _ask.set(ask)
    try:
        yield
    finally:
        _ask.set(before)


def may_publish() -> None:
    """Raise RunOver where the work at hand is of a run that does not hold its folder any more."""
    ask = _ask.get()
    if ask is not None:
        ask()
