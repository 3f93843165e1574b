"""Make each sum in one thread, wherever a worker was started: set within the process, not by its environment alone.

A sum that is split among threads changes in its last bits with their number, and a digest with it. Workers of this
machine are started with one thread a library (environment.py); what an engine starts has as many as its machine has
cores. So a worker says it before it loads a model, for libraries that come with it, and after that for those that have
come. OpenMP keeps the number for each thread of the process: each that does a unit says it for itself.

Sessions of onnxruntime have their number from where they are made (filters/scorers/onnx.py, stock_mark.py).
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable

from pipeline.execution.environment import HUB, WORKERS

_bound = threading.local()


def bind_threads() -> None:
    """Let libraries that are loaded, and those that will be, compute in one thread when this thread asks them."""
    os.environ.update(WORKERS)
    os.environ.setdefault(HUB, "1")
    if (limits := _limits()) is not None:
        limits(1)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
        with contextlib.suppress(RuntimeError):  # said before, or at work: no number comes from there
            torch.set_num_interop_threads(1)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)
    if (numexpr := sys.modules.get("numexpr")) is not None:
        numexpr.set_num_threads(1)


def _limits() -> Callable[[int], object] | None:
    """Return what sets the threads of loaded BLAS, and of OpenMP for this thread; None without the extra `score`, whose
    heads alone multiply matrices outside torch that are large enough to be split."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    return threadpool_limits  # type: ignore[no-any-return]  # it has no types


def bind_this_thread(loaded: str) -> None:
    """Do it for a thread that does units, once for what is `loaded`: it may have brought libraries along."""
    if getattr(_bound, "loaded", None) != loaded:
        bind_threads()
        _bound.loaded = loaded
