"""Start a job server in Java, once for all steps of an invocation; it ends with this process, however that ends."""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.execution import java_keeper
from pipeline.execution.backends import ServerCommand
from pipeline.execution.errors import RunFailed
from pipeline.execution.interrupts import interrupts_blocked
from pipeline.recipes.schema import RecipeError

READY_S = 120.0
"""Seconds that a job server may take until its port answers: Java, its libraries, on a busy machine."""
TICK_S = 0.1
LOG_LINES = 6
"""Lines of its log that a message shows."""
END_S = 10.0
"""Seconds that the keeper may take to end it."""


class JobServer:
    """One job server in Java, and the keeper that ends it."""

    def __init__(self, command: ServerCommand, log: Path) -> None:
        """Start it and return at once. Raises RecipeError where Java or what it loads is not there."""
        _need(command)
        self.command, self.log = command, log
        self.ports = free_ports(3)
        self.endpoint = f"localhost:{self.ports[0]}"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.began = log.stat().st_size if log.exists() else 0
        options = [*command.options]
        if "--artifacts-dir" not in options:
            options += ["--artifacts-dir", java_keeper.KEPT]
        ports = zip(("job", "artifact", "expansion"), self.ports, strict=True)
        words = [command.java, *command.loads, *options, *(f"--{name}-port={port}" for name, port in ports)]
        with interrupts_blocked():
            self.process = subprocess.Popen(
                [sys.executable, "-S", java_keeper.__file__, str(log), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the whole group; the run decides
            )

    def wait_until_ready(self) -> None:
        """Return when its port answers. Raises RunFailed with the end of its log where it ends, or says nothing."""
        end = time.monotonic() + READY_S
        while not answers(self.endpoint):
            if not self.alive:
                raise RunFailed(f"the job server ended at its start: {self.said()}; its log: {self.log}")
            if time.monotonic() > end:
                raise RunFailed(f"the job server does not answer after {READY_S:.0f} s; its log: {self.log}")
            time.sleep(TICK_S)

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.process.poll() is None

    def said(self) -> str:
        """Return the end of what it wrote into its log."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(self.began, file.seek(0, os.SEEK_END) - 4000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
            telling = [line for line in lines if not line.startswith("at ")]
            return " | ".join(telling[-LOG_LINES:]) or "it said nothing"
        return "it said nothing"

    def close(self) -> None:
        """End it, and return when it has ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel kills Java with its keeper
            self.process.wait()


def _need(command: ServerCommand) -> None:
    if shutil.which(command.java) is None:
        raise RecipeError(
            f"no Java: {command.java!r} is no program here, and the job server needs one; install a Java runtime (11 or"
            " 17), set JAVA_HOME or runner.java, or give runner.job_endpoint of a job server that runs elsewhere"
        )
    kind, named = command.loads[-2:] if "-jar" in command.loads else command.loads[-3:-1]
    key = "runner.jar" if kind == "-jar" else "runner.classpath"
    for part in named.split(os.pathsep) if kind == "-cp" else [named]:
        folder = Path(part).parent if part.endswith("*") else Path(part)
        if not folder.exists() or (part.endswith("*") and not any(folder.glob("*.jar"))):
            raise RecipeError(f"{key}: {part!r} is not there, or holds no jars; it is looked for in {os.getcwd()}")


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets: Sequence[socket.socket] = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(address: str, seconds: float = 1.0) -> bool:
    """Tell whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


_shared: dict[tuple[ServerCommand, Path], JobServer] = {}


def job_server(command: ServerCommand, log: Path) -> JobServer:
    """Return this process's job server of a command, started anew where none runs, and ready.

    Raises RecipeError where it cannot be started, RunFailed where it ends at its start.
    """
    server = _shared.get((command, log))
    if server is None or not server.alive or not answers(server.endpoint):  # its keeper ends a moment after it
        close()
        server = _shared[command, log] = JobServer(command, log)
    server.wait_until_ready()
    return server


def close() -> None:
    """End every job server of this process."""
    while _shared:
        _shared.popitem()[1].close()


atexit.register(close)
