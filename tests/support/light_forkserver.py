"""A fork server without Beam, whose workers do the one word that stands in their job file."""

import os
import signal
import sys
import time
import types
from pathlib import Path

from tests.support.paths import ROOT

COMMAND = (sys.executable, "-m", "tests.support.light_forkserver")


def work(job: Path) -> int:
    """Exit with a number, tell where it works, be killed, sleep, or sleep through SIGTERM."""
    word = job.read_text()
    if word.isdigit():
        return int(word)
    if word == "tell":
        print(sorted(os.environ.items()), os.getcwd(), repr(sys.stdin.read()))
    elif word == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if word == "sleep through SIGTERM" else signal.SIG_DFL)
        print("ready", flush=True)
        time.sleep(600)
    return 0


def job(folder: Path, word: str) -> Path:
    """Write a job file and return its path."""
    path = folder / f"{word}.job"
    path.write_text(word)
    return path


def main() -> None:
    """Serve with this module's `work` in place of the pipeline's."""
    sys.path.insert(0, str(ROOT))
    worker = types.ModuleType("pipeline.execution.worker")
    worker.work = work  # type: ignore[attr-defined]
    sys.modules[worker.__name__] = worker
    from pipeline.execution.forkserver_process import Server, ignore_interrupts

    ignore_interrupts()
    Server(os.dup(1)).serve()


if __name__ == "__main__":
    main()
