"""Make each sum in one thread, wherever a worker was started: set within the process, not by its environment alone.

A sum that is split among threads changes in its last bits with their number, and a digest with it. Workers of this
machine are started with one thread a library (environment.py); what an engine starts has as many as its machine has
cores. So a worker says it before it loads a model, for libraries that come with it, and after that for those that have
come. OpenMP keeps the number for each thread of the process: each that does a unit says it for itself.

Sessions of onnxruntime have their number from where they are made (filters/scorers/onnx.py, stock_mark.py).
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.execution.environment import HUB, WORKERS

limits: Callable[[int], Any] | None
try:  # here, so that the process that workers are forked from has it
    from threadpoolctl import threadpool_limits

    limits = threadpool_limits
except ImportError:
    limits = None

OPENBLAS = tuple(f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_"))
"""What OpenBLAS calls its setter, by how it was built; Fortran's, which take a pointer, end in `_` and `_64_`."""
_bound = threading.local()


def bind_threads() -> None:
    """Let libraries that are loaded, and those that will be, compute in one thread when this thread asks them."""
    os.environ.update(WORKERS)
    os.environ.setdefault(HUB, "1")
    _limit_blas()
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
        with contextlib.suppress(RuntimeError):  # said before, or at work: no number comes from there
            torch.set_num_interop_threads(1)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)
    if (numexpr := sys.modules.get("numexpr")) is not None:
        numexpr.set_num_threads(1)


def _limit_blas() -> None:
    """Set the threads of loaded BLAS, and of OpenMP for this thread: by threadpoolctl, which the extra `score` brings,
    else those of the OpenBLAS in numpy's and scipy's wheels."""
    if limits is None:
        _limit_openblas()
    else:
        limits(1)


def _limit_openblas() -> None:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # no Linux
        return
    for path in {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}:
        library = ctypes.CDLL(path)
        for name in OPENBLAS:
            if hasattr(library, name):
                getattr(library, name)(1)


def bind_this_thread(loaded: str) -> None:
    """Do it for a thread that does units, once for what is `loaded`: it may have brought libraries along."""
    if getattr(_bound, "loaded", None) != loaded:
        bind_threads()
        _bound.loaded = loaded
