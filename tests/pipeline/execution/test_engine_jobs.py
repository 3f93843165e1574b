"""pipeline/execution/engine_jobs.py: a job that a client left running is found by its note, and ended."""

from dataclasses import replace

import pytest

from pipeline.execution import engine_jobs
from pipeline.execution.engine_jobs import FOLDER, JobNote, end_job, forget, ids_of, keep, new_name, notes, settle_jobs
from pipeline.execution.java import free_ports
from pipeline.execution.job_service import Unreachable
from pipeline.execution.run_folder import locked
from tests.support.engines import FakeFlink, FakeJobServer


@pytest.fixture
def server():
    fake = FakeJobServer()
    yield fake
    fake.close()


@pytest.fixture
def flink():
    fake = FakeFlink()
    yield fake
    fake.close()


def note(name="tessera-score-1", endpoint="", rest="", **more):
    return JobNote(name, "score", "flink", endpoint, rest, **more)


def test_notes_are_kept_and_forgotten(tmp_path):
    one, two = keep(tmp_path, note("a")), keep(tmp_path, note("b"))
    keep(tmp_path, replace(one, job="a_1"))
    (tmp_path / FOLDER / "c.json").write_text("{")
    assert sorted(notes(tmp_path), key=lambda kept: kept.name) == [replace(one, job="a_1"), two]
    forget(tmp_path, one)
    assert list(notes(tmp_path)) == [two]
    assert new_name("pack_order") != new_name("pack_order")
    assert new_name("pack_order").startswith("tessera-pack-order-")


def test_ids_are_those_of_the_server_and_of_flink(server, flink):
    server.jobs = {"tessera-score-1_u": "RUNNING"}
    asked = note(endpoint=server.endpoint, rest=flink.address)
    assert ids_of(asked)[0] == replace(asked, job="tessera-score-1_u")
    flink.jobs = {"tessera-score-1": ("RUNNING", {"RUNNING": 2})}
    known, beam, job = ids_of(asked)
    assert (known.engine, beam.state, job.tasks) == ("id-tessera-score-1", "RUNNING", {"RUNNING": 2})


def test_flink_is_asked_too_since_the_job_servers_word_is_not_enough(server, flink):
    server.jobs = {"tessera-score-1_u": "RUNNING", "tessera-score-2_u": "RUNNING"}
    flink.jobs = {"tessera-score-1": ("RUNNING", {"RUNNING": 2}), "tessera-score-2": ("RUNNING", {"RUNNING": 2})}
    assert end_job(note(endpoint=server.endpoint, rest=flink.address))
    assert (server.cancelled, flink.cancelled) == (["tessera-score-1_u"], ["tessera-score-1"])
    assert not end_job(note(endpoint=server.endpoint, rest=flink.address))


def test_a_job_that_comes_to_flink_after_the_server_was_asked_is_ended(server, flink, monkeypatch):
    server.jobs = {"tessera-score-1_u": "STARTING"}

    def pause(seconds):
        flink.jobs["tessera-score-1"] = ("RUNNING", {})

    monkeypatch.setattr("pipeline.execution.engine_jobs.time.sleep", pause)
    assert end_job(note(endpoint=server.endpoint, rest=flink.address))
    assert flink.cancelled == ["tessera-score-1"]


def test_one_that_does_not_end_is_said(monkeypatch):
    stubborn = FakeJobServer(obeys=False)
    stubborn.jobs = {"tessera-score-1_u": "RUNNING"}
    with pytest.raises(Unreachable, match="the job tessera-score-1 was asked to end and has not"):
        end_job(note(endpoint=stubborn.endpoint), seconds=0.0)
    stubborn.close()


def test_whoever_takes_the_folder_ends_what_was_left(server, flink, tmp_path, capsys):
    flink.jobs = {"tessera-score-1": ("RUNNING", {"RUNNING": 2})}
    gone = f"localhost:{free_ports(1)[0]}"
    keep(tmp_path, note(endpoint=gone, rest=flink.address, own_server=True))
    keep(tmp_path, note("tessera-score-2", gone, own_server=True))
    keep(tmp_path, note("tessera-score-3", "embed"))
    with locked(tmp_path):
        assert flink.cancelled == ["tessera-score-1"]
    assert list(notes(tmp_path)) == []
    said = capsys.readouterr().err
    assert said == ("an earlier run left its job of score on flink (tessera-score-1): it is cancelled, and has ended\n")


def test_one_that_cannot_be_asked_for_stays_noted(tmp_path, capsys):
    kept = keep(tmp_path, note(endpoint=f"localhost:{free_ports(1)[0]}"))
    settle_jobs(tmp_path)
    assert list(notes(tmp_path)) == [kept]
    said = capsys.readouterr().err
    assert "(job tessera-score-1), and it cannot be asked for now (the job server at" in said
    assert f"delete {tmp_path}/logs/jobs/tessera-score-1.json" in said


def test_no_note_costs_no_question(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_jobs, "end_job", None)
    settle_jobs(tmp_path)


def test_a_job_of_dataflow_is_not_forgotten_before_somebody_has_looked(tmp_path, capsys):
    kept = keep(tmp_path, replace(note(), runner="dataflow"))
    settle_jobs(tmp_path)
    assert list(notes(tmp_path)) == [kept]
    assert "gcloud dataflow jobs cancel" in capsys.readouterr().err
