"""pipeline/execution/engine_watch.py: what a job waits for, and when it has waited too long."""

import time

import pytest

from pipeline.execution import engine_watch
from pipeline.execution.engine_jobs import JobNote, notes
from pipeline.execution.engine_watch import HANDED, RUNNING, SLOTS, WORKERS, Limits, Watch
from tests.support.engines import FakeFlink, FakeJobServer


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(engine_watch, "LOOK_S", 0.0)
    monkeypatch.setattr(engine_watch, "LOOKS", 0.0)
    server, flink = FakeJobServer(), FakeFlink(taskmanagers=2, slots=4, free=1)
    yield server, flink
    server.close()
    flink.close()


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("pipeline.execution.engine_watch.time.monotonic", lambda: now[0])
    return now


def watch(tmp_path, server, flink, signs):
    note = JobNote("j", "score", "flink", server.endpoint, flink.address if flink else "")
    return Watch(tmp_path, note, Limits(60, 200), lambda: signs[0], moved=time.monotonic())


def test_states_of_a_job_on_flink(engine, tmp_path):
    (server, flink), signs = engine, [0.0]
    job = watch(tmp_path, server, flink, signs)
    states = [
        (None, HANDED),
        (("RUNNING", {"SCHEDULED": 2, "RUNNING": 0}), SLOTS),
        (("RUNNING", {"RUNNING": 2}), WORKERS),
        (("RESTARTING", {}), "restarting (1)"),
        (("RUNNING", {"RUNNING": 2}), WORKERS),
        (("RESTARTING", {}), "restarting (2)"),
    ]
    for has, shown in states:
        flink.jobs = {"j": has} if has else {}
        job.look()
        assert job.shown() == shown
    signs[0] = time.time()
    flink.jobs = {"j": ("RUNNING", {"RUNNING": 2})}
    job.look()
    assert (job.state, job.shown(), job.alive) == (RUNNING, "", True)
    assert [kept.engine for kept in notes(tmp_path)] == ["id-j"]


def test_states_of_a_job_that_the_job_server_alone_knows(engine, tmp_path):
    server, _ = engine
    job = watch(tmp_path, server, None, [0.0])
    seen = []
    for has in ({}, {"j_1": "STARTING"}, {"j_1": "RUNNING"}):
        server.jobs = has
        job.look()
        seen.append(job.state)
    assert seen == [HANDED, HANDED, WORKERS]
    server.close()
    job.look()
    assert job.state == WORKERS  # the client says what became of it


def test_waiting_for_slots_ends_with_what_there_is(engine, tmp_path, clock):
    server, flink = engine
    job = watch(tmp_path, server, flink, [0.0])
    job.look()
    clock[0] += 30
    flink.jobs = {"j": ("RUNNING", {"SCHEDULED": 2, "RUNNING": 0})}
    job.look()
    clock[0] += 29  # handed over or waiting: one wait
    assert job.overdue() == ""
    clock[0] += 1
    assert job.overdue() == (
        "the job waits for slots: Flink has 1 free ones of 4 in 2 TaskManagers; start another TaskManager, or ask for"
        " fewer with --workers (60 s; runner.start_s = 60)"
    )


def test_workers_that_never_begin_and_those_that_fall_silent(engine, tmp_path, clock):
    (server, flink), signs = engine, [0.0]
    job = watch(tmp_path, server, flink, signs)
    flink.jobs = {"j": ("RUNNING", {"RUNNING": 2})}
    job.look()
    clock[0] += 60
    assert job.overdue().startswith("no worker has begun: the engine has the job and no environment answers")
    signs[0] = time.time()
    job.look()
    clock[0] += 319
    job.look()
    assert job.overdue() == ""
    signs[0] += 1
    job.look()  # a sign of life
    clock[0] += 319
    assert job.overdue() == ""
    clock[0] += 1
    assert job.overdue() == "no worker has given a sign of life (320 s; runner.stall_s = 200)"


def test_what_cannot_be_asked_is_said(tmp_path, clock):
    server, flink = FakeJobServer(), FakeFlink()
    job, alone = watch(tmp_path, server, flink, [0.0]), watch(tmp_path, server, None, [0.0])
    flink.jobs = {"j": ("RUNNING", {"SCHEDULED": 2})}
    job.look()
    server.close()
    flink.close()
    clock[0] += 60
    assert "Flink cannot be asked (Flink's REST at" in job.overdue()
    assert alone.overdue().startswith("the engine has not begun the job; look into the job server's log")
