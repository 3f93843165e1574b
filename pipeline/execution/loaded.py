"""Hold the one worker that a process has loaded: its models are in memory once, and one unit at a time goes through.

An engine sets a step up in several threads of one process: in each slot of a TaskManager, in each of a local engine's.
Two that import and load at once fail (transformers finds its own modules half imported), and hold everything twice.
Units take turns since models keep buffers and states between calls, and rows in hand are those of the process that dies
with them. Nothing is gained by threads: a sum is made in one (threads.py), and Python runs one at a time. More at once
is a matter of more processes (`workers_per_machine` of [runner]).
"""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.execution.step import Worker
from pipeline.execution.threads import bind_this_thread, bind_threads


@dataclass(frozen=True)
class _Held:
    job: str
    worker: Worker


_TURN = threading.Lock()
_held: _Held | None = None


@contextmanager
def loaded(job: str, open_: Callable[[], Worker]) -> Iterator[Worker]:
    """Yield the worker of a job, `open_`ed where this process has not loaded it, for as long as the block runs; other
    threads wait. What was loaded for another job goes first."""
    global _held
    with _TURN:
        if _held is None or _held.job != job:
            _let_go()
            bind_threads()
            _held = _Held(job, open_())
        bind_this_thread(job)
        yield _held.worker


def _let_go() -> None:
    global _held
    if _held is None:
        return
    _held = None
    let_go_memory()


def let_go_memory() -> None:
    """Give back what a model held that nothing names any more, the GPU's too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
