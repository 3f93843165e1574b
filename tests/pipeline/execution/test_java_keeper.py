"""pipeline/execution/java_keeper.py: what it keeps ends with the process that holds its pipe, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.execution import java_keeper

CHILD = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()} {sys.argv[2]}'); time.sleep(600)"
OWNER = (
    "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True);"
    "time.sleep(600)"
)


def kept(folder: Path) -> list[str]:
    child = [sys.executable, "-c", CHILD, str(folder / "pid"), java_keeper.KEPT]
    return [sys.executable, "-S", java_keeper.__file__, str(folder / "log"), *child]


def until(what):
    end = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def written(folder: Path) -> tuple[int, Path]:
    said = until(lambda: (folder / "pid").is_file() and (folder / "pid").read_text())
    pid, _, scratch = said.partition(" ")
    return int(pid), Path(scratch)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_owner(tmp_path, number):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *kept(tmp_path)])
    pid, scratch = written(tmp_path)
    assert scratch.is_dir()
    owner.send_signal(number)
    owner.wait()
    until(lambda: gone(pid))
    until(lambda: not scratch.exists())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux alone ends a process with its parent")
def test_it_ends_with_its_keeper(tmp_path):
    keeper = subprocess.Popen(kept(tmp_path), stdin=subprocess.PIPE)
    pid, _ = written(tmp_path)
    keeper.kill()
    keeper.wait()
    until(lambda: gone(pid))


def test_the_exit_code_and_what_was_said_stay(tmp_path):
    command = [sys.executable, "-c", "import sys; print('no main class', file=sys.stderr); sys.exit(7)"]
    keeper = [sys.executable, "-S", java_keeper.__file__, str(tmp_path / "log"), *command]
    assert subprocess.run(keeper, stdin=subprocess.PIPE, check=False).returncode == 7
    assert (tmp_path / "log").read_text() == "no main class\n"
