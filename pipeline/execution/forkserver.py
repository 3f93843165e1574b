"""Start a worker process in 30 ms: the supervisor's side of a fork server, which has imported Beam and forks workers.

multiprocessing's own ("forkserver", these modules preloaded; measured with Python 3.11.7 on two cores) keeps 3.5 s of
imports out of each worker too, but it could not
- leave the caller's `__main__` alone: each worker runs it again, 200 ms a worker for the script `pipeline`, and one
  without a `__main__` guard ends every worker with RuntimeError;
- let Ctrl-C reach the supervisor alone: it ends the server while that imports, and a worker until its function is
  called, since the server sets its handlers after the imports and takes them back in the fork;
- end workers with their supervisor: killed, it leaves worker and server running, as each worker holds the pipe whose
  end the server waits for;
- end workers with the server: it was killed, `poll` said 255, and the worker went on, so that two would do one shard;
- give a worker its whole environment, standard output and standard error before its function is called: what fails
  until then is written on the terminal.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pipeline.execution.environment import worker_environment
from pipeline.execution.interrupts import interrupts_blocked

SERVER = (sys.executable, "-m", "pipeline.execution.forkserver_process")
"""The server is a program of its own, so that neither threads of the supervisor nor its `__main__` are forked."""
LOST = -signal.SIGKILL
"""Exit code of a worker whose fork server died."""


class ForkServer:
    """One running fork server: requests go to its standard input, process numbers and exit codes come back."""

    def __init__(self, command: Sequence[str] = SERVER) -> None:
        """Start the process and return at once; it imports while the caller goes on."""
        self.path = os.environ.get("PYTHONPATH")
        self.pids: dict[int, int] = {}
        self.codes: dict[int, int] = {}
        self._tickets = 0
        self._buffer = b""
        self.stopping = False
        """A worker is being stopped: that the process has ended too (a signal to the whole group) is no news."""
        self.error = ""
        """The end of what the process wrote to standard error, once it has ended."""
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this object
        with interrupts_blocked():  # the process inherits that, until it ignores them
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=worker_environment(0),
            )

    def start(self, job: Path, log: Path, environment: dict[str, str]) -> "WorkerProcess":
        """Ask for a worker with this job file, log file and whole environment. Raises OSError where the log cannot be
        written."""
        log.open("ab").close()
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
        if self._ready(seconds) and not self._take_in():
            self.close()
            if not self.stopping:
                print(f"the process that starts workers ended: {self.error or 'killed'}", file=sys.stderr)

    def close(self) -> None:
        """End the process and every worker that still runs."""
        self.process.kill()
        self.process.wait()
        while self._ready() and self._take_in():
            """What it has said before its end names workers, and those whose process numbers are free again."""
        if not self._stderr.closed:
            self._stderr.seek(0)
            self.error = self._stderr.read().decode(errors="replace")[-2000:].strip()
            self._stderr.close()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        for ticket in range(1, self._tickets + 1):
            if ticket in self.pids and ticket not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[ticket], signal.SIGKILL)
            self.codes.setdefault(ticket, LOST)

    def _ready(self, seconds: float = 0.0) -> bool:
        out = self.process.stdout
        return out is not None and not out.closed and bool(select.select([out], [], [], seconds)[0])

    def _take_in(self) -> bool:
        """Read one piece of the answers; return False at their end."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65_536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            (self.codes if "code" in answer else self.pids)[answer["ticket"]] = answer.get("code", answer.get("pid"))
        return bool(data)


class WorkerProcess:
    """One worker process, as subprocess.Popen shows its own."""

    def __init__(self, server: ForkServer, ticket: int) -> None:
        self.server, self.ticket = server, ticket

    @property
    def pid(self) -> int | None:
        """Return the process number, None until the server has forked."""
        self.server.listen()
        return self.server.pids.get(self.ticket)

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number where one ended it, None while it runs."""
        self.server.listen()
        return self.server.codes.get(self.ticket)

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired when it still runs after this time."""
        end = None if seconds is None else time.monotonic() + seconds
        while (code := self.server.codes.get(self.ticket)) is None:
            rest = 1.0 if end is None else end - time.monotonic()
            if rest <= 0:
                raise subprocess.TimeoutExpired("worker", seconds or 0.0)
            self.server.listen(rest)
        return code

    def stop(self) -> None:
        """End it: ask, wait three seconds, then kill. One that the server has not forked yet ends with the server."""
        self.server.stopping = True
        try:
            self._stop()
        finally:
            self.server.stopping = False

    def _stop(self) -> None:
        if self.poll() is not None:
            return
        if self.pid is None:
            self.server.close()
            return
        self._send(signal.SIGTERM)
        try:
            self.wait(3)
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self.wait()

    def _send(self, number: int) -> None:
        if self.poll() is None:  # else the number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.server.pids[self.ticket], number)


_shared: ForkServer | None = None


def forkserver() -> ForkServer:
    """Return this process's fork server, started anew where none runs. Call it early: it imports meanwhile."""
    global _shared
    if _shared is None or not _shared.alive:
        close()
        _shared = ForkServer()
    return _shared


def close() -> None:
    """End this process's fork server."""
    global _shared
    if _shared is not None:
        _shared.close()
        _shared = None


atexit.register(close)
