"""Start worker processes within milliseconds: fork them from one process that has imported Beam and started nothing.

The nursery is its own program, so that neither threads of the supervisor nor its `__main__` are forked. It takes
requests as JSON lines on standard input and answers with process numbers and exit codes. It ends when its standard
input closes, and its children end with it, however that came.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from pipeline.execution.environment import worker_environment

OPTIONAL = ("pandas", "pymongo")
"""What Beam and pyarrow import where it is installed, half of their time; no worker has a use for them."""
PRELOADED = ("pipeline.stages.registry",)
"""What workers run: imported once, before the first is forked. Named, not imported: steps stand on higher floors."""
LOST = -signal.SIGKILL
"""Exit code of a worker whose nursery died."""


class ForkServer:
    """The supervisor's side: one running nursery process."""

    def __init__(self) -> None:
        """Start the process and return at once; it imports while the caller goes on."""
        self.path = os.environ.get("PYTHONPATH")
        self.pids: dict[int, int] = {}
        self.codes: dict[int, int] = {}
        self._tickets = 0
        self._heard = b""
        self.last_words = ""
        """The end of what the process wrote to standard error, once it has ended."""
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this object
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.execution.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=worker_environment(0),
        )

    def start(self, job: Path, log: Path, environment: dict[str, str]) -> "WorkerProcess":
        """Ask for a worker with this job file, log file and whole environment."""
        self._tickets += 1
        request = {
            "ticket": self._tickets,
            "job": str(job),
            "log": str(log),
            "environment": environment,
            "folder": os.getcwd(),
        }
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.close()
        return WorkerProcess(self, self._tickets)

    @property
    def alive(self) -> bool:
        """Tell whether workers can still be asked for."""
        return self.process.poll() is None and self.path == os.environ.get("PYTHONPATH")

    def listen(self, seconds: float = 0.0) -> None:
        """Take in what the process says within this time; where it has died, all of its workers have."""
        out = self.process.stdout
        if out is None or out.closed or not select.select([out], [], [], seconds)[0]:
            return
        data = os.read(out.fileno(), 65_536)
        if not data:
            self.close()
            print(f"the process that starts workers ended: {self.last_words or 'killed'}", file=sys.stderr)
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            (self.codes if "code" in said else self.pids)[said["ticket"]] = said.get("code", said.get("pid"))

    def close(self) -> None:
        """End the process and every worker that is left."""
        self.process.kill()
        self.process.wait()
        if not self._said.closed:
            self._said.seek(0)
            self.last_words = self._said.read().decode(errors="replace")[-2000:].strip()
            self._said.close()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        for ticket in range(1, self._tickets + 1):
            if ticket in self.pids and ticket not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[ticket], signal.SIGKILL)
            self.codes.setdefault(ticket, LOST)


class WorkerProcess:
    """One worker process, as subprocess.Popen shows its own."""

    def __init__(self, nursery: ForkServer, ticket: int) -> None:
        self.nursery, self.ticket = nursery, ticket

    @property
    def pid(self) -> int | None:
        """Return the process number, None until the nursery has forked."""
        self.nursery.listen()
        return self.nursery.pids.get(self.ticket)

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number where one ended it, None while it runs."""
        self.nursery.listen()
        return self.nursery.codes.get(self.ticket)

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired when it still runs after this time."""
        end = None if seconds is None else time.monotonic() + seconds
        while (code := self.nursery.codes.get(self.ticket)) is None:
            left = 1.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired("worker", seconds or 0.0)
            self.nursery.listen(left)
        return code

    def stop(self) -> None:
        """End it: ask, wait three seconds, then kill. One that is not yet born takes its nursery along."""
        if self.poll() is not None:
            return
        if self.pid is None:
            self.nursery.close()
            return
        self._send(signal.SIGTERM)
        try:
            self.wait(3)
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self.wait()

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.nursery.pids[self.ticket], number)


_shared: ForkServer | None = None


def forkserver() -> ForkServer:
    """Return this process's nursery, started anew where there is none (any more). Call it early: it imports
    meanwhile."""
    global _shared
    if _shared is None or not _shared.alive:
        close()
        _shared = ForkServer()
    return _shared


def close() -> None:
    """End this process's nursery."""
    global _shared
    if _shared is not None:
        _shared.close()
        _shared = None


atexit.register(close)


class Server:
    """The nursery's own side."""

    def __init__(self, answers: int) -> None:
        """`answers`: the file descriptor that the supervisor reads."""
        self.answers = answers
        self.tickets: dict[int, int] = {}
        self.lifeline = os.pipe()
        self.wake = os.pipe()
        os.set_blocking(self.wake[1], False)
        signal.set_wakeup_fd(self.wake[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> NoReturn:
        """Fork a worker per request and tell of those that ended, until standard input closes."""
        heard = b""
        while True:
            ready = select.select([0, self.wake[0]], [], [])[0]
            if self.wake[0] in ready:
                os.read(self.wake[0], 4096)
                self._reap()
            if 0 in ready:
                data = os.read(0, 65_536)
                if not data:
                    os._exit(0)
                *lines, heard = (heard + data).split(b"\n")
                for line in lines:
                    self._fork(json.loads(line))

    def _say(self, **answer: int) -> None:
        try:
            os.write(self.answers, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            os._exit(0)

    def _reap(self) -> None:
        while self.tickets:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._say(ticket=self.tickets.pop(pid), code=os.waitstatus_to_exitcode(status))

    def _fork(self, request: dict[str, Any]) -> None:
        pid = os.fork()
        if not pid:
            try:
                self._grow_up(request)
            finally:  # whatever happened: the fork never serves
                os._exit(1)
        self.tickets[pid] = request["ticket"]
        self._say(ticket=request["ticket"], pid=pid)

    def _grow_up(self, request: dict[str, Any]) -> None:
        """Become a worker: its own log, environment and folder; end when the nursery does."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for new, old in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(new, old)
        for descriptor in (log, nothing, self.answers, self.lifeline[1], *self.wake):
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        tempfile.tempdir = None  # TMPDIR is another one now
        end_with(self.lifeline[0])
        from pipeline.execution.worker import work  # imported before the fork

        code = work(Path(request["job"]))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Beam and onnxruntime threads must not hold a finished worker


def end_with(lifeline: int) -> None:
    """End this process as soon as the other end of the pipe closes, however that came."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> NoReturn:
    """Import what every worker needs, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    gc.disable()
    import pyarrow as pa

    with hidden(*OPTIONAL):
        import pipeline.execution.worker  # noqa: F401  # Beam: half of what a worker imports

        pa.scalar("")  # pyarrow looks for pandas at the first value that it makes, once
    for name in PRELOADED:
        importlib.import_module(name)

    gc.enable()
    gc.freeze()
    Server(answers).serve()


class Hidden:
    """Finds none of these packages and lets nobody else: `import` raises as where they are not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for a hidden package."""
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden while the nursery imports)", name=name)


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let packages that are not imported yet seem to be missing while the block runs."""
    finder = Hidden(names)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
