"""Keep one Java process for another process, and end it when that ends, however it ends.

Run as `python java_keeper.py LOG COMMAND…`. Standard input is a pipe whose other end the run holds: when it closes, by
the run's end or its kill, Java is ended. Its temporary files go with it. Imports nothing of ours: it starts at once.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import NoReturn

KEPT = "{scratch}"
"""Stands in the command for a folder that goes with the process."""
GRACE_S = 3.0
"""Seconds between the request to end and the kill."""
TICK_S = 0.2
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def keep(log: str, command: list[str]) -> int:
    """Run the command until it ends or standard input closes; return its exit code."""
    scratch = tempfile.mkdtemp(prefix="job-server-")
    command = [word.replace(KEPT, scratch) for word in command]
    environment = {**os.environ, "TMPDIR": scratch}
    try:
        with open(log, "ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                preexec_fn=_die_with_parent,  # single-threaded here
            )
        while process.poll() is None:
            if select.select([0], [], [], TICK_S)[0] and not os.read(0, 1):
                _end(process)
        return process.returncode
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> NoReturn:
    """Keep what the arguments say."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe alone decides
    sys.exit(keep(sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    main()
