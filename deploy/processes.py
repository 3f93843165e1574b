"""Start processes that outlive this one, note each in a file, and end exactly those."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LINES_OF_A_LOG = 15


@dataclass(frozen=True)
class Noted:
    """A process that was started: its number is another's once that has ended, so the time of its start stands by."""

    name: str
    pid: int
    started: int
    """Clock ticks from the machine's start (proc(5), field 22)."""
    log: str

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return started_at(self.pid) == self.started

    @property
    def left(self) -> list[int]:
        """Return the processes of its session that still run; none where another program has its number by now, which
        Linux gives to nobody while one of the session runs."""
        return session(self.pid) if started_at(self.pid) in (self.started, None) else []

    def end(self, seconds: float = 15.0) -> None:
        """End its whole session, so also what it started: ask, wait, then kill."""
        for number, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
            if not self.left:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            wait_until(lambda: not self.left, wait)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the command; none where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def started_at(pid: int) -> int | None:
    """Return when a process started, None where it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def session(leader: int) -> list[int]:
    """Return the processes of a session that still run."""
    numbers = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in numbers if (fields := _stat(pid)) and int(fields[3]) == leader]


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, at most this long; tell whether it holds."""
    end = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return done


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a port of this machine takes connections."""
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((host, port)) == 0


def start(name: str, command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> Noted:
    """Start a process in a session of its own, its output in FOLDER/NAME.log, and note it in FOLDER/NAME.json."""
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    noted = Noted(name, process.pid, started_at(process.pid) or 0, str(log))
    fresh = folder / f"{name}.tmp"
    fresh.write_text(json.dumps(asdict(noted)) + "\n")
    fresh.replace(folder / f"{name}.json")
    return noted


def noted_in(folder: Path) -> list[Noted]:
    """Return the processes that are noted in a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError):
            found.append(Noted(**json.loads(path.read_text())))
    return found


def end_all(folder: Path) -> list[str]:
    """End the processes that are noted in a folder, last started first, and drop the notes. Return the names of those
    that ran."""
    ended = []
    for one in sorted(noted_in(folder), key=lambda one: -one.started):
        if one.left:
            ended.append(one.name)
            one.end()
        (folder / f"{one.name}.json").unlink(missing_ok=True)
    return ended


def end_of_log(path: str | Path) -> str:
    """Return the last lines of a log."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-LINES_OF_A_LOG:])
