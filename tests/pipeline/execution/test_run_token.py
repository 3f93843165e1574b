"""pipeline/execution/run_token.py: what works for an earlier run puts nothing into the folder any more."""

from dataclasses import asdict

import pytest

from manifests.files import write_bytes
from manifests.publishing import RUN_TOKEN, RunOver
from pipeline.execution.errors import RunFailed
from pipeline.execution.grouped import Finish, Spread
from pipeline.execution.job import OVER, Job, error_path
from pipeline.execution.run_folder import locked
from pipeline.execution.run_token import current_token, holding, new_token
from pipeline.execution.worker import RunUnit, run
from tests.support import steps
from tests.support.grouping import as_on_a_cluster
from tests.support.shuffles import SPREAD, ByNumber, Counts
from tests.support.stage_steps import recipe_at
from tests.support.supervised import RECIPE
from tests.support.supervised import run as supervise


def snapshot(root):
    kept = (path for path in root.rglob("*") if path.is_file() and path.name not in (".lock", RUN_TOKEN))
    return {path.relative_to(root): path.read_bytes() for path in kept}


def test_each_take_of_the_folder_has_its_own_token_and_none_is_left_behind(tmp_path):
    seen = []
    for _ in range(2):
        with locked(tmp_path):
            seen.append(current_token(tmp_path))
        assert current_token(tmp_path) == ""
    assert len({*seen, ""}) == 3
    with pytest.raises(ValueError, match="fell over"), locked(tmp_path):
        raise ValueError("fell over")
    assert not (tmp_path / RUN_TOKEN).exists()


def test_a_run_whose_folder_was_taken_from_it_publishes_nothing_and_leaves_the_others_token(tmp_path):
    with new_token(tmp_path), new_token(tmp_path / "elsewhere"):
        write_bytes(tmp_path / "elsewhere" / RUN_TOKEN, b"another")
        with pytest.raises(RunOver, match="does not hold the folder any more"):
            write_bytes(tmp_path / "elsewhere" / "a", b"")
    assert current_token(tmp_path / "elsewhere") == "another"


def test_without_a_token_nothing_is_asked(tmp_path):
    with holding(tmp_path, ""):
        write_bytes(tmp_path / "a", b"")


def test_an_orphan_puts_no_file_and_no_record_into_the_next_run(tmp_path):
    """Its worker was loaded, and had begun with a unit, before the folder was taken again."""
    with locked(tmp_path):
        token = current_token(tmp_path)
        step = steps.Counting(RECIPE, tmp_path)
        orphan = RunUnit(step, "", {}, token)
        orphan.setup()
        units = step.units()
        assert list(orphan.process(units[0])) == ["00000"]
    before = snapshot(tmp_path)
    for _ in range(2):  # after the run has ended, and while another one holds the folder
        with pytest.raises(RunOver):
            list(orphan.process(units[1]))
        with pytest.raises(RunOver):
            RunUnit(step, "", {}, token).setup()
        assert snapshot(tmp_path) == before
        with locked(tmp_path):
            with pytest.raises(RunOver):
                list(orphan.process(units[1]))
            with holding(tmp_path, token), pytest.raises(RunOver):  # it was within a unit at the time
                step.journal.record(step.run(units[1], steps.InFlight()))
        assert snapshot(tmp_path) == before


def test_an_orphan_of_a_shuffle_on_a_cluster_is_refused_too(tmp_path):
    (tmp_path / SPREAD).write_text("2")
    with locked(tmp_path):
        token = current_token(tmp_path)
        step = Counts(recipe_at(tmp_path), tmp_path)
        leg, units = ByNumber(step.recipe, tmp_path), step.units()
        kind = f"{type(step).__module__}:{type(step).__qualname__}"
        job = Job(
            kind, str(tmp_path), step.recipe.plain(), [asdict(unit) for unit in units], "", runner="flink", token=token
        )
        with as_on_a_cluster():
            run(job)
    made = snapshot(tmp_path)
    step.journal.forget([unit.name for unit in units])
    left = snapshot(tmp_path)
    with locked(tmp_path):
        with pytest.raises(RunOver):
            list(Spread(leg, leg.units(), token).process((0, ())))
        with pytest.raises(RunOver):
            list(Finish(step, units, token).process((0, [])))
    assert snapshot(tmp_path) == left
    assert len(made) > len(left)


def test_a_worker_that_was_overtaken_says_so_to_its_supervisor(tmp_path):
    step = steps.Counting(RECIPE, tmp_path)
    with locked(tmp_path):
        worker = RunUnit(step, str(tmp_path / "logs" / "a.in_flight"), {}, "an earlier one")
        with pytest.raises(RunOver):
            worker.setup()
    assert error_path(str(tmp_path / "logs" / "a.in_flight")).read_text().startswith(f"{OVER}\n{tmp_path}: the run")


@pytest.mark.parametrize("when", ["in time", "overtaken"])
def test_workers_of_this_machine_work_under_the_token_of_their_run(tmp_path, monkeypatch, when):
    with locked(tmp_path):
        if when == "overtaken":
            monkeypatch.setattr("pipeline.execution.supervisor.current_token", lambda root: "an earlier one")
            with pytest.raises(RunFailed, match=r"counting: .*: the run that this work is for does not hold"):
                supervise(steps.Counting(RECIPE, tmp_path), workers=2)
            assert not (tmp_path / "out").exists()
        else:
            supervise(steps.Counting(RECIPE, tmp_path), workers=2)
            assert len(list((tmp_path / "out").iterdir())) == 6
