"""deploy/chaos.py: what is killed is the part that was asked for, and what is left behind is found."""

import os
import random
import signal
import subprocess
import sys

import pytest

from deploy import chaos
from deploy.chaos import KINDS, Chaos, below, disturb, kill, left, main, run_once, victims
from deploy.demo import Trial
from deploy.processes import start
from deploy.settings import Settings
from tests.support.waiting import wait_for

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def sleeper():
    """A process that does nothing, in a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_processes_below_one_are_found_at_any_depth():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    outer = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: len(below(outer.pid)) == 1)
        (inner,) = below(outer.pid)
        assert {outer.pid, inner} <= set(below(os.getpid()))
        assert "time.sleep(600)" in below(outer.pid)[inner]
        os.kill(inner, signal.SIGKILL)
    finally:
        outer.kill()
        outer.wait()


def test_one_of_several_is_killed(sleeper):
    assert kill([], random.Random(0)) == ""
    assert kill([sleeper.pid], random.Random(0)) == str(sleeper.pid)
    assert sleeper.wait(60) == -signal.SIGKILL


def test_the_victims_are_those_of_the_kind(tmp_path, sleeper):
    names = ("flink-taskmanager-1", "flink-taskmanager-2", "flink-jobmanager", "pool")
    started = {name: start(name, [sys.executable, "-c", SLEEP], tmp_path) for name in names}
    try:
        for kind in ("taskmanager-spare", "taskmanager-none"):
            found = set(victims(kind, sleeper.pid, tmp_path))
            assert found == {started["flink-taskmanager-1"].pid, started["flink-taskmanager-2"].pid}
        assert victims("worker", sleeper.pid, tmp_path) == victims("server", sleeper.pid, tmp_path) == []
        assert victims("client", sleeper.pid, tmp_path) == [sleeper.pid]
    finally:
        for one in started.values():
            one.end()


@pytest.mark.parametrize(("kind", "number"), [("client", signal.SIGKILL), ("ctrl-c", signal.SIGINT)])
def test_a_command_is_killed_or_interrupted(sleeper, tmp_path, kind, number):
    disturb(kind, sleeper, tmp_path, random.Random(0))
    assert sleeper.wait(60) in (-number, 1)
    disturb(kind, sleeper, tmp_path, random.Random(0))  # has ended


def test_jobs_and_temporary_files_that_are_left_are_named(tmp_path, monkeypatch):
    jobs = [{"name": "a", "state": "RUNNING"}, {"name": "b", "state": "CANCELED"}]
    monkeypatch.setattr(chaos, "get", lambda url: {"jobs": jobs})
    server = f"java -jar {chaos.HOME}/flink-job-server.jar"
    running = {6: "python -m pipeline.cli run", 7: server, 8: server, 9: "java -jar other-job-server.jar", 10: server}
    monkeypatch.setattr(chaos, "below", lambda pid: {1: running, 6: {10: server}}[pid])  # 10 is another run's
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "0.tar.tmp-1").touch()
    assert left(Settings(), tmp_path, {8}) == ["job a is RUNNING", "job server 7", "pairs/0.tar.tmp-1"]


def test_a_run_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(Trial, "command", lambda trial, stage, settings: [sys.executable, "-c", SLEEP])
    monkeypatch.setattr(chaos, "RUN_S", 0.1)
    assert run_once(Trial("flink", tmp_path), Settings(), tmp_path / "log", lambda process: None) == -1


def test_a_trial_is_repeated_until_its_command_ends_well(tmp_path, monkeypatch):
    codes = iter([-9, 1, 0])
    monkeypatch.setattr(chaos, "run_once", lambda *given: next(codes))
    monkeypatch.setattr(chaos, "mend", lambda *given: None)
    monkeypatch.setattr(chaos, "left", lambda *given: [])
    monkeypatch.setattr(chaos.subprocess, "run", lambda *given, **more: subprocess.CompletedProcess(given, 0))
    outcome = Chaos(Settings(), 0, tmp_path).trial("client", 0)
    assert (outcome.codes, outcome.faults) == ([-9, 1, 0], [])


def test_a_digest_that_differs_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos, "run_once", lambda *given: 0)
    monkeypatch.setattr(chaos, "mend", lambda *given: None)
    monkeypatch.setattr(chaos, "left", lambda *given: ["job a is RUNNING"])
    monkeypatch.setattr(chaos.subprocess, "run", lambda *given, **more: subprocess.CompletedProcess(given, 1))
    monkeypatch.setattr(Trial, "digests", lambda trial: {"filter": trial.root.name})
    outcome = Chaos(Settings(), 0, tmp_path).trial("worker", 3)
    assert outcome.faults == [
        "digest {'filter': 'worker-3'}, wanted {'filter': 'local'}",
        "job a is RUNNING",
        "verify finds something wrong",
    ]


def test_an_unknown_kind_and_a_cluster_that_does_not_run_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["--kinds", "earthquake"])
    assert f"there are {', '.join(KINDS)}" in capsys.readouterr().err
    monkeypatch.setattr(chaos, "run_folder", lambda: tmp_path)
    assert main([]) == 1
    assert "make cluster-up" in capsys.readouterr().err
