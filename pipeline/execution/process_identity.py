"""Name a process so that any other can tell whether it is gone: machine, number, and when it was started."""

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from manifests.files import FormatError, parsing


@dataclass(frozen=True)
class Process:
    """A process. `machine`: host, its boot and its namespace of process numbers; `started`: in ticks since that boot, 0
    where the system does not say."""

    machine: str
    pid: int
    started: int

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, value: Any) -> "Process | None":
        """Return what `plain` gave, None for anything else."""
        try:
            with parsing("a process", "none"):
                return cls(str(value["machine"]), int(value["pid"]), int(value["started"]))
        except FormatError:
            return None


@cache
def machine() -> str:
    """Return what tells this machine, since its last start, and within it this container from others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = space = "?"
    return f"{socket.gethostname()} {boot} {space}"


def this_process() -> Process:
    """Return the process that asks."""
    return Process(machine(), os.getpid(), _started(os.getpid()) or 0)


def is_gone(process: Process) -> bool:
    """Tell whether a process is known to have ended: one of another machine is not."""
    if process.machine != machine() or "?" in process.machine:
        return False
    started = _started(process.pid)
    return started is None or (process.started != 0 and started != process.started)


def _started(pid: int) -> int | None:
    """Return when a process was started, 0 where the system does not say, None where there is none or it has ended."""
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
