"""deploy/processes.py: what was started is noted, and that is ended, with what it started, and nothing else."""

import json
import os
import socket
import sys
from dataclasses import asdict

from deploy.processes import Noted, end_all, end_of_log, listens, noted_in, session, start, started_at, wait_until
from tests.support.waiting import wait_for

FAMILY = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"


def test_a_process_and_what_it_started_are_ended(tmp_path):
    code = FAMILY + "import time; print('up', flush=True); time.sleep(600)"
    one = start("one", [sys.executable, "-c", code], tmp_path, {"PYTHONUNBUFFERED": "1"})
    wait_for(lambda: (tmp_path / "one.log").read_text() == "up\n")
    assert noted_in(tmp_path) == [one]
    assert one.alive
    assert len(session(one.pid)) == 2
    assert end_all(tmp_path) == ["one"]
    assert session(one.pid) == []
    assert not one.alive
    assert noted_in(tmp_path) == []
    assert end_all(tmp_path) == []


def test_what_a_process_started_is_ended_after_its_own_end_too(tmp_path):
    one = start("one", [sys.executable, "-c", FAMILY], tmp_path)
    os.waitpid(one.pid, 0)
    assert not one.alive
    assert len(session(one.pid)) == 1
    assert end_all(tmp_path) == ["one"]
    assert session(one.pid) == []


def test_one_that_does_not_end_when_asked_is_killed(tmp_path):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    one = start("one", [sys.executable, "-c", code], tmp_path)
    wait_for(lambda: (tmp_path / "one.log").read_text() == "up\n")
    one.end(0.2)
    assert wait_until(lambda: not one.alive, 60)


def test_a_number_that_is_another_processs_by_now_is_left_alone(tmp_path):
    """Its own, which a note of another start time names."""
    other = Noted("other", os.getpid(), (started_at(os.getpid()) or 0) - 1, str(tmp_path / "log"))
    assert not other.alive
    (tmp_path / "other.json").write_text(json.dumps(asdict(other)))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "foreign.json").write_text('{"pid": 1}')
    assert noted_in(tmp_path) == [other]
    assert other.left == []
    assert end_all(tmp_path) == []
    assert started_at(os.getpid()) is not None


def test_a_port_listens_or_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
    assert not listens(port)


def test_the_end_of_a_log_is_shown(tmp_path):
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(30)))
    assert end_of_log(tmp_path / "log").splitlines() == [f"  line {number}" for number in range(15, 30)]
    assert end_of_log(tmp_path / "none") == ""


def test_a_process_that_is_gone_started_at_no_time():
    assert started_at(4_000_001) is None  # larger than any
