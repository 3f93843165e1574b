"""pipeline/execution/job.py: what a supervisor hands to a worker comes out of the file as it went in."""

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.execution.job import Job, error_path
from pipeline.execution.step import Runtime, Unit
from pipeline.recipes.schema import RecipeError
from tests.support.steps import Counting
from tests.support.supervised import RECIPE

UNITS = [Unit("00000", {"first": 0}, "digest", "key"), Unit("00001", {"file": "é.tar", "rows": [1, 2]}, "other")]


def job(**changes):
    values = {
        "step": "tests.support.steps:Counting",
        "root": "runs/é",
        "recipe": RECIPE.plain(),
        "units": [asdict(unit) for unit in UNITS],
        "in_flight": "runs/é/counting-0.in_flight",
        "crash_counts": {"00" * 16: 2},
        "runtime": {"connect_to": {"pictures.test:80": "127.0.0.1:9"}, "retry": ["timeout"]},
        "runner": "flink",
        "beam_options": ["--parallelism=2"],
    }
    return Job(**values | changes)


def test_a_job_comes_out_of_its_file_as_it_went_in(tmp_path):
    job().write(tmp_path / "counting-0.job")
    assert Job.read(tmp_path / "counting-0.job") == job()


def test_step_and_units_are_built_again(tmp_path):
    job().write(tmp_path / "x.job")
    read = Job.read(tmp_path / "x.job")
    step = read.make_step()
    assert type(step) is Counting
    assert (step.recipe, step.root) == (RECIPE, Path("runs/é"))
    assert step.runtime.connect_to == {"pictures.test:80": "127.0.0.1:9"}
    assert list(step.runtime.retry) == ["timeout"]
    assert read.make_units() == UNITS
    assert step.own_key == Counting(RECIPE, Path("elsewhere")).own_key  # keys are the supervisor's


def test_a_job_without_facts_of_this_invocation_has_the_defaults():
    step = job(runtime={}).make_step()
    assert step.runtime == Runtime()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"step": "tests.support.steps:Missing"}, AttributeError),
        ({"step": "tests.support.nothing:Counting"}, ModuleNotFoundError),
        ({"recipe": {"tiers": {}}}, RecipeError),
    ],
)
def test_what_cannot_be_built_again_is_an_error(changes, error):
    with pytest.raises(error):
        job(**changes).make_step()


def test_the_error_file_stands_beside_the_rows_in_hand():
    assert error_path("run/logs/workers/score-0.in_flight") == Path("run/logs/workers/score-0.error")
