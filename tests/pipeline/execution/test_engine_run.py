"""pipeline/execution/engine_run.py: a step on an engine; Beam's own job service, or stand-ins where Java would be."""

import pyarrow.parquet as pq
import pytest

from pipeline.execution.backends import RunnerOptions
from pipeline.execution.engine_jobs import notes
from pipeline.execution.engine_run import EngineRun
from pipeline.execution.errors import RunFailed
from pipeline.execution.job import Job
from pipeline.execution.progress import Progress
from pipeline.execution.run_token import new_token
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError
from tests.support import steps
from tests.support.engines import FakeFlink, FakeJobServer
from tests.support.paths import ROOT
from tests.support.supervised import RECIPE, FakeServer

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def tests_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def engine_run(step, runner="portable", **config):
    options = RunnerOptions(runner, config=RunnerConfig(**{"job_endpoint": "embed", **config}))
    return EngineRun(step, options, Progress(step.name, 6))


def squares(root):
    tables = [pq.read_table(path).to_pylist() for path in sorted((root / "out").glob("*.parquet"))]
    return {row["n"]: row["square"] for table in tables for row in table}


@slow
def test_all_units_are_done_and_no_note_is_left(tmp_path):
    step = steps.Counting(RECIPE, tmp_path)
    job = engine_run(step)
    job.run(step.units())
    assert squares(tmp_path) == {n: n * n for n in range(60)}
    assert (job.progress.done, job.failures, job.progress.state) == (6, 0, "")
    assert list(notes(tmp_path)) == []


@slow
def test_what_a_failed_job_has_left_is_handed_over_again(tmp_path, capsys):
    step = steps.KilledOnce(RECIPE, tmp_path)
    job = engine_run(step)
    job.run(step.units())
    assert squares(tmp_path) == {n: n * n for n in range(60)}
    assert job.failures == 1
    assert (
        "counting: the job on portable failed (the process that handed it over ended by signal 9)"
        in capsys.readouterr().err
    )


@slow
@pytest.mark.parametrize(("kind", "failures"), [("Killed", 4), ("Raising", 3)])
def test_a_row_that_kills_its_workers_is_dropped_alone(tmp_path, kind, failures):
    """Every job dies with row 23, at once; what is raised is known to it from the first time on."""
    step = getattr(steps, kind)(RECIPE, tmp_path)
    job = engine_run(step)
    with new_token(tmp_path):
        job.run(step.units())
    assert job.failures == failures
    assert squares(tmp_path) == {n: n * n for n in range(60) if n != 23}
    assert step.journal.get("00002").dropped == {"worker_died": 1}
    assert not (tmp_path / "logs" / "marks").exists() or not any((tmp_path / "logs" / "marks").iterdir())


@slow
def test_a_job_that_fails_for_good_says_why(tmp_path):
    step = steps.Raising(RECIPE, tmp_path)
    with pytest.raises(RunFailed, match=r"counting: \d+ jobs failed, the last: RuntimeError: a decoder fell over"):
        engine_run(step).run(step.units())


@slow
def test_what_a_worker_refuses_is_not_tried_again(tmp_path):
    step = steps.WrongWeights(RECIPE, tmp_path)
    with pytest.raises(RecipeError, match=r"^weights of x: got \(1, 2\), wanted \(3, 4\)$"):
        engine_run(step).run(step.units())


@pytest.fixture
def engine():
    server, flink = FakeJobServer(), FakeFlink()
    yield server, flink
    server.close()
    flink.close()


def faked(monkeypatch, tmp_path, engine, endings, **config):
    server, flink = engine
    clients = FakeServer(endings)
    monkeypatch.setattr("pipeline.execution.engine_run.forkserver", lambda: clients)
    monkeypatch.setattr("pipeline.execution.engine_watch.LOOK_S", 0.0)
    step = steps.Counting(RECIPE, tmp_path)
    more = {"job_endpoint": server.endpoint, "master": flink.address, "environment": "loopback"}
    return engine_run(step, "flink", **more, **config), clients


def told(client, option):
    return next(word.partition("=")[2] for word in client.job.beam_options if word.startswith(f"--{option}="))


def test_a_stalled_job_is_cancelled_and_explained(tmp_path, monkeypatch, engine):
    job, clients = faked(monkeypatch, tmp_path, engine, [None], start_s=0.2)
    with pytest.raises(RunFailed) as error:
        job.run(job.step.units())
    assert str(error.value).startswith("counting: the engine has not begun the job; look into the job server's log (")
    assert str(error.value).endswith("; the job is cancelled; finished shards stay: run the same command again")
    assert clients.workers[0].stopped == 1
    assert list(notes(tmp_path)) == []


def test_an_interrupt_cancels_the_job_on_the_engine(tmp_path, monkeypatch, engine, capsys):
    server, flink = engine
    job, clients = faked(monkeypatch, tmp_path, engine, [None])

    def interrupted(client, watch, pending):
        name = told(clients.workers[0], "job_name")
        server.jobs[f"{name}_u"], flink.jobs[name] = "RUNNING", ("RUNNING", {"RUNNING": 1})
        assert [note.name for note in notes(tmp_path)] == [name]
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(job.step.units())
    assert [len(server.cancelled), len(flink.cancelled), clients.workers[0].stopped] == [1, 1, 1]
    assert list(notes(tmp_path)) == []
    assert "counting: the job on flink is cancelled, and has ended" in capsys.readouterr().err


def test_a_job_that_nobody_can_be_asked_for_stays_noted(tmp_path, monkeypatch, engine, capsys):
    job, _ = faked(monkeypatch, tmp_path, engine, [None])

    def gone(client, watch, pending):
        for one in engine:
            one.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_turn", gone)
    with pytest.raises(KeyboardInterrupt):
        job.run(job.step.units())
    assert len(list(notes(tmp_path))) == 1
    assert "may still run on flink (Flink's REST at" in capsys.readouterr().err


def test_jobs_that_no_worker_begins_are_given_up_after_two(tmp_path, monkeypatch, engine):
    job, clients = faked(monkeypatch, tmp_path, engine, [1, 1])
    with pytest.raises(RunFailed, match=r"2 jobs failed, the last: it did not say why; its log: .*counting-0\.log"):
        job.run(job.step.units())
    assert len(clients.workers) == 2


def test_an_engine_that_ends_without_records_is_no_success(tmp_path, monkeypatch, engine):
    job, _ = faked(monkeypatch, tmp_path, engine, [0])
    with pytest.raises(RunFailed, match=r"without a record of 6 shards \(00000, .*\): its workers see another folder"):
        job.run(job.step.units())


@pytest.mark.parametrize(("asked", "free", "wide"), [(0, 2, "2"), (4, 3, "3"), (1, 3, "1"), (0, 9, "6")])
def test_a_job_takes_no_more_slots_than_are_free_nor_than_it_has_units(
    tmp_path, monkeypatch, engine, asked, free, wide
):
    engine[1].free = free
    job, clients = faked(monkeypatch, tmp_path, engine, [0], parallelism=asked)
    with pytest.raises(RunFailed):
        job.run(job.step.units())
    assert told(clients.workers[0], "parallelism") == wide
    assert Job(**vars(clients.workers[0].job)).runtime["lanes"] == int(wide)


def test_no_free_slot_is_waited_for_and_then_explained(tmp_path, monkeypatch, engine):
    engine[1].free, engine[1].taskmanagers = 0, 0
    monkeypatch.setattr("pipeline.execution.engine_run.SLOT_LOOK_S", 0.01)
    job, clients = faked(monkeypatch, tmp_path, engine, [], start_s=0.1)
    with pytest.raises(RunFailed, match=r"has had no free slot for .*: 2 slots in 0 TaskManagers; start another"):
        job.run(job.step.units())
    assert clients.workers == []


def test_a_job_server_that_went_away_is_waited_for_and_then_said(tmp_path, monkeypatch, engine):
    monkeypatch.setattr("pipeline.execution.engine_run.SLOT_LOOK_S", 0.01)
    monkeypatch.setattr("pipeline.execution.engine_run.SERVER_S", 0.1)
    engine[0].close()
    job, clients = faked(monkeypatch, tmp_path, engine, [])
    with pytest.raises(RunFailed, match=r"nobody answers at localhost:\d+ any more, where jobs are handed over; start"):
        job.run(job.step.units())
    assert clients.workers == []
