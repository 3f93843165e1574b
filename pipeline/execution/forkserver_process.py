"""Fork worker processes from one process that has imported Beam and started nothing: the fork server's own side.

Requests are JSON lines on standard input: ticket, job file, log file, folder and whole environment of a worker.
Answers are JSON lines on what was standard output: {ticket, pid} after the fork, {ticket, code} after its end. The
server ends when its standard input closes, and its workers end with it, however that came.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from pipeline.execution.hidden_imports import arrow_without_pandas, hidden

OPTIONAL = ("pandas", "pymongo")
"""What Beam and pyarrow import where it is installed, half of their time; no worker has a use for them."""
PRELOADED = ("pipeline.stages.registry",)
"""What workers run: imported once, before the first is forked. Named, not imported: steps stand on higher floors."""


class Server:
    """Forks a worker per request and answers with process numbers and exit codes."""

    def __init__(self, answers: int) -> None:
        """`answers`: the file descriptor that the supervisor reads."""
        self.answers = answers
        self.tickets: dict[int, int] = {}
        self.sentinel = os.pipe()
        self.wake = os.pipe()
        os.set_blocking(self.wake[1], False)
        signal.set_wakeup_fd(self.wake[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> NoReturn:
        """Fork a worker per request and tell of those that ended, until standard input closes."""
        buffer = b""
        while True:
            ready = select.select([0, self.wake[0]], [], [])[0]
            if self.wake[0] in ready:
                os.read(self.wake[0], 4096)
                self._reap()
            if 0 in ready:
                data = os.read(0, 65_536)
                if not data:
                    os._exit(0)
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._fork(json.loads(line))

    def _answer(self, **answer: int) -> None:
        try:
            os.write(self.answers, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            os._exit(0)

    def _reap(self) -> None:
        while self.tickets:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._answer(ticket=self.tickets.pop(pid), code=os.waitstatus_to_exitcode(status))

    def _fork(self, request: dict[str, Any]) -> None:
        pid = os.fork()
        if not pid:
            try:
                self._become_worker(request)
            finally:  # whatever happened: the fork never serves
                exit_with_traceback()
        self.tickets[pid] = request["ticket"]
        self._answer(ticket=request["ticket"], pid=pid)

    def _become_worker(self, request: dict[str, Any]) -> NoReturn:
        """Become a worker: its own log, environment and folder; end when the server does."""
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for new, old in ((log, 1), (log, 2), (nothing, 0)):
            os.dup2(new, old)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (log, nothing, self.answers, self.sentinel[1], *self.wake):
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        tempfile.tempdir = None  # TMPDIR is another one now
        end_with(self.sentinel[0])
        code = self.work(request)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Beam and onnxruntime threads must not hold a finished worker

    def work(self, request: dict[str, Any]) -> int:
        """Do what the fork is there for: the job of this file. Return the exit code."""
        from pipeline.execution.worker import work  # imported before the fork

        return work(Path(request["job"]))


def end_with(sentinel: int) -> None:
    """End this process as soon as the other end of the pipe closes, however that came."""

    def wait() -> None:
        os.read(sentinel, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def exit_with_traceback() -> NoReturn:
    """End this process with exit code 1; print the error that is on its way, where that can be printed."""
    try:
        if error := sys.exception():
            traceback.print_exception(error)
            sys.stderr.flush()
    finally:
        os._exit(1)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which reaches the whole group, in this process and those it forks: the supervisor decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # forkserver.py starts this process with it blocked


def main(server: type[Server] = Server) -> NoReturn:
    """Import what every worker needs, then serve."""
    ignore_interrupts()
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    gc.disable()
    with hidden(*OPTIONAL):
        import pipeline.execution.worker  # noqa: F401  # Beam: half of what a worker imports

        arrow_without_pandas()
    for name in PRELOADED:
        importlib.import_module(name)

    gc.enable()
    gc.freeze()
    server(answers).serve()


if __name__ == "__main__":
    main()
