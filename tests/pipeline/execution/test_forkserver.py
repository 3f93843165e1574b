"""pipeline/execution/forkserver.py: workers are started, waited for and ended through a fork server."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pipeline.execution import forkserver as module
from pipeline.execution.forkserver import LOST, ForkServer, WorkerProcess, forkserver
from tests.support.light_forkserver import COMMAND, job
from tests.support.paths import ROOT
from tests.support.waiting import parents, wait_for


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def server():
    server = ForkServer(COMMAND)
    yield server
    server.close()


def saying(code):
    """Return a server that is a few lines of Python."""
    return ForkServer((sys.executable, "-c", f"import os, signal, sys\n{code}"))


def ready(worker, log):
    """Wait until the worker sleeps."""
    wait_for(lambda: log.read_text() == "ready\n")
    return worker


def test_a_worker_is_waited_for_like_a_subprocess(server, tmp_path):
    worker = server.start(job(tmp_path, "sleep"), tmp_path / "log", {})
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.0)
    assert worker.poll() is None
    assert server.start(job(tmp_path, "7"), tmp_path / "other", {}).wait() == 7
    assert parents()[worker.pid] == server.process.pid
    ready(worker, tmp_path / "log").stop()
    assert worker.poll() == -signal.SIGTERM
    assert worker.wait(0.0) == -signal.SIGTERM
    assert server.alive


def test_a_worker_that_does_not_end_when_asked_is_killed(server, tmp_path):
    class Impatient(WorkerProcess):
        def wait(self, seconds=None):
            return super().wait(seconds and 0.05)

    server.start(job(tmp_path, "sleep through SIGTERM"), tmp_path / "log", {})
    worker = ready(Impatient(server, 1), tmp_path / "log")
    worker.stop()
    assert worker.poll() == -signal.SIGKILL


def test_a_worker_that_is_not_forked_yet_ends_with_the_server(tmp_path):
    server = saying("sys.stdin.read()")
    worker = server.start(job(tmp_path, "sleep"), tmp_path / "log", {})
    assert worker.pid is None
    worker.stop()
    assert worker.poll() == LOST
    assert not server.alive


def test_a_log_that_cannot_be_written_is_an_error_of_the_caller(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="none/log"):
        server.start(job(tmp_path, "7"), tmp_path / "none" / "log", {})
    assert server.start(job(tmp_path, "7"), tmp_path / "log", {}).wait() == 7


def test_a_killed_server_loses_its_workers_and_ends_them(server, tmp_path, capsys):
    worker = server.start(job(tmp_path, "sleep"), tmp_path / "log", {})
    pid = ready(worker, tmp_path / "log").pid
    server.process.kill()
    assert worker.wait() == LOST
    assert capsys.readouterr().err == "the process that starts workers ended: killed\n"
    assert not server.alive
    wait_for(lambda: pid not in parents())


def test_the_end_of_a_server_is_no_news_to_who_stops_its_worker(server, tmp_path, capsys):
    worker = server.start(job(tmp_path, "sleep"), tmp_path / "log", {})
    server.process.kill()  # as by SIGTERM to the whole group
    server.process.wait()
    worker.stop()
    assert (worker.poll(), capsys.readouterr().err) == (LOST, "")


def test_a_worker_asked_of_a_server_that_has_died_is_lost(server, tmp_path):
    server.process.kill()
    server.process.wait()
    assert server.start(job(tmp_path, "7"), tmp_path / "log", {}).poll() == LOST


def test_why_a_server_ended_is_told(tmp_path, capsys):
    worker = saying("sys.exit('no module named beam')").start(job(tmp_path, "7"), tmp_path / "log", {})
    assert worker.wait() == LOST
    assert capsys.readouterr().err == "the process that starts workers ended: no module named beam\n"


ENDED = """os.write(1, b'{"ticket": 1, "pid": 4000001}\\n{"ticket": 1, "code": 3}\\n')\nos.close(1)\nsys.stdin.read()"""
"""A server that has forked worker 1 and seen its end. The process number is larger than any (2 ** 22)."""


def test_a_worker_whose_end_is_told_but_not_read_is_not_signalled(tmp_path, monkeypatch):
    """Its number may be another process's by then."""
    signalled, kill = [], os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: (signalled.append(pid), kill(pid, number)))
    for end in (lambda worker: worker._send(signal.SIGTERM), lambda worker: worker.server.close()):
        server = saying(ENDED)
        worker = server.start(job(tmp_path, "7"), tmp_path / "log", {})
        server.pids[1] = 4_000_001
        assert server._ready(60)  # both answers wait in the pipe
        end(worker)
        assert server.codes == {1: 3}
        assert 4_000_001 not in signalled
        server.close()


def test_closing_ends_a_worker_whose_number_is_told_but_not_read(tmp_path, monkeypatch):
    signalled, kill = [], os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: (signalled.append((pid, number)), kill(pid, number)))
    server = saying(ENDED.replace(r'{"ticket": 1, "code": 3}\n', ""))
    worker = server.start(job(tmp_path, "7"), tmp_path / "log", {})
    assert server._ready(60)
    server.close()
    assert (4_000_001, signal.SIGKILL) in signalled
    assert worker.poll() == LOST


def test_ctrl_c_reaches_no_server_that_is_still_importing():
    """It was ignored only after Python and the first imports had been loaded."""
    server = saying("""os.kill(os.getpid(), signal.SIGINT); os.write(1, b'{"ticket": 1, "code": 0}\\n')""")
    server.listen(60)
    assert server.codes == {1: 0}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    server.close()


def test_one_server_is_shared_until_it_dies_or_the_path_changes(monkeypatch):
    monkeypatch.setattr(module, "ForkServer", partial(ForkServer, (sys.executable, "-c", "input()")))
    monkeypatch.setattr(module, "_shared", None)
    first = forkserver()
    assert forkserver() is first
    first.process.kill()
    first.process.wait()
    second = forkserver()
    assert second is not first
    monkeypatch.setenv("PYTHONPATH", str(Path(ROOT) / "tests"))
    third = forkserver()
    assert third is not second
    assert not second.alive
    module.close()
    assert not third.alive
    assert module._shared is None
