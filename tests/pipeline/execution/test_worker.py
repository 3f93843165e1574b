"""pipeline/execution/worker.py: a worker journals what it does, and leaves its error and an exit code that says whose
fault it was."""

import json
import os
import signal

import pytest

from manifests.weights import WeightsError
from pipeline.execution.claims import Claims
from pipeline.execution.in_flight import read_in_flight
from pipeline.execution.job import DONE, FAILED, MISUSED, NO_ROOM, Job, error_path
from pipeline.execution.worker import RunUnit, work
from pipeline.recipes.schema import RecipeError
from tests.support import shuffles, steps
from tests.support.supervised import RECIPE


@pytest.fixture
def in_flight(tmp_path):
    return tmp_path / "counting-0.in_flight"


def do(step, in_flight, units=(), counts=None):
    """Do units one after the other, as Beam would in one process; return the names that it passed on."""
    worker = RunUnit(step, str(in_flight), counts or {})
    worker.setup()
    return [name for unit in units for name in worker.process(unit)]


def test_a_unit_is_journalled_and_passed_on_by_name(tmp_path, in_flight):
    step = steps.Counting(RECIPE, tmp_path)
    assert do(step, in_flight, step.units()[:2]) == ["00000", "00001"]
    assert [step.journal.get(name).rows_out for name in ("00000", "00001")] == [10, 10]
    assert step.journal.get("00002") is None
    assert read_in_flight(in_flight) == ("", [])


def test_a_worker_that_is_ready_gives_a_sign_of_life(tmp_path, in_flight):
    assert do(steps.Counting(RECIPE, tmp_path), in_flight) == []
    assert in_flight.exists()


def test_a_unit_that_another_attempt_has_done_is_passed_on_without_work(tmp_path, in_flight, monkeypatch):
    step = steps.Counting(RECIPE, tmp_path)
    do(step, in_flight, step.units()[:1])
    monkeypatch.setattr(steps.Counting, "run", None)
    assert do(step, in_flight, step.units()[:1]) == ["00000"]


def test_a_poisoned_row_is_left_out(tmp_path, in_flight):
    step = steps.Counting(RECIPE, tmp_path)
    do(step, in_flight, step.units()[:1], {(4).to_bytes(16, "big").hex(): 3})
    assert step.journal.get("00000").dropped == {"worker_died": 1}


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        (steps.Raising, RuntimeError, "1\nRuntimeError: a decoder fell over"),
        (steps.FullDisk, OSError, "28\n[Errno 28] No space left on device"),
    ],
)
def test_an_error_is_left_for_the_supervisor_with_its_rows_in_hand(tmp_path, in_flight, kind, error, text):
    step = kind(RECIPE, tmp_path)
    with pytest.raises(error):
        do(step, in_flight, step.units()[2:3])  # rows 20 to 29, in batches of 4: 20 to 23
    assert error_path(str(in_flight)).read_text() == text
    unit, uids = read_in_flight(in_flight)
    assert (unit, [int(uid, 16) for uid in uids]) == ("00002", [20, 21, 22, 23])
    assert step.journal.get("00002") is None


def test_on_a_cluster_nothing_is_left_beside_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = steps.Raising(RECIPE, tmp_path / "run")
    with pytest.raises(RuntimeError, match="a decoder fell over"):
        do(step, "", step.units()[2:3])
    assert list(tmp_path.rglob("*.error")) == []
    with pytest.raises(WeightsError):
        do(steps.WrongWeights(RECIPE, tmp_path), "")


def worked(tmp_path, in_flight, monkeypatch, kind, units=()):
    """Return the exit code of a worker process for this job."""
    set_handlers = {}
    monkeypatch.setattr(signal, "signal", set_handlers.__setitem__)
    claims = Claims(tmp_path / "x.claims")
    if units:
        claims.open(units)
    kind_name, folder = f"{kind.__module__}:{kind.__name__}", str(claims.folder) if units else ""
    job = Job(kind_name, str(tmp_path), RECIPE.plain(), [], str(in_flight), claims=folder)
    job.write(tmp_path / "x.job")
    code = work(tmp_path / "x.job")
    assert set_handlers == {signal.SIGINT: signal.SIG_IGN}
    return code


def broken_recipe(self):
    raise RecipeError("caption.model: no such folder")


@pytest.mark.parametrize(
    ("opening", "code", "left"),
    [
        (lambda self: self, DONE, None),
        (broken_recipe, MISUSED, "2\ncaption.model: no such folder"),
        (steps.WrongWeights.open, MISUSED, "2\nweights of x: got (1, 2), wanted (3, 4)"),
        (lambda self: os.stat("/none"), FAILED, "1\nFileNotFoundError: [Errno 2] No such file or directory: '/none'"),
        (lambda self: json.loads("{"), FAILED, "1\nJSONDecodeError: Expecting property name"),
    ],
)
def test_the_exit_code_says_whose_fault_it_was(tmp_path, in_flight, monkeypatch, capsys, opening, code, left):
    monkeypatch.setattr(steps.Counting, "open", opening)
    assert worked(tmp_path, in_flight, monkeypatch, steps.Counting) == code
    error = error_path(str(in_flight))
    assert (error.read_text() if error.exists() else "").startswith(left or "")
    assert ("Traceback" in capsys.readouterr().err) == (code != DONE)  # which is the worker's log


def test_a_job_that_cannot_be_built_is_a_failure_without_an_error_file(tmp_path, in_flight, monkeypatch):
    kind = type("Gone", (steps.Counting,), {"__module__": "tests.support.steps"})
    assert worked(tmp_path, in_flight, monkeypatch, kind) == FAILED
    assert not error_path(str(in_flight)).exists()


def test_units_go_through_beam(tmp_path, in_flight, monkeypatch):
    step = steps.Counting(RECIPE, tmp_path)
    assert worked(tmp_path, in_flight, monkeypatch, steps.Counting, step.units()[:2]) == DONE
    assert sorted(path.stem for path in step.journal.folder.glob("0*.json")) == ["00000", "00001"]


def test_a_full_disk_has_its_own_exit_code_through_beam_too(tmp_path, in_flight, monkeypatch):
    """Beam passes on an error's text alone: the code comes from the file beside the rows in hand."""
    units = steps.FullDisk(RECIPE, tmp_path).units()[2:3]
    assert worked(tmp_path, in_flight, monkeypatch, steps.FullDisk, units) == NO_ROOM


def test_units_of_a_derived_step_need_no_pipeline(tmp_path, in_flight, monkeypatch):
    monkeypatch.setattr("pipeline.execution.worker.pipeline_options", None)
    (tmp_path / shuffles.SPREAD).write_text("2")
    leg = shuffles.ByNumber(RECIPE, tmp_path)
    assert worked(tmp_path, in_flight, monkeypatch, shuffles.ByNumber, leg.units()) == DONE
    assert all(leg.journal.done(unit.name, unit.key) is not None for unit in leg.units())
