"""pipeline/execution/engine.py: paths that workers can follow."""

import os
from pathlib import Path

import pytest

from pipeline.execution.backends import RunnerOptions
from pipeline.execution.engine import seen_by_workers, try_engine, with_width
from pipeline.execution.engine_jobs import JobNote, keep
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError
from tests.support.engines import FakeFlink


def recipe(root: str, files="data/*.parquet"):
    return parse_recipe({"tier": {"a": {"size": 64}}, "output": {"root": root}, "input": {"files": files}})


def options(runner="portable", **config):
    return RunnerOptions(runner, config=RunnerConfig(**config))


def test_paths_are_made_absolute_where_workers_are_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    read = seen_by_workers(recipe("runs/a", ["data", "s3://b/c"]), options(job_endpoint="localhost:1"))
    assert read.root == Path(here) / "runs" / "a"
    assert read.input.files == [f"{here}/data", "s3://b/c"]
    assert seen_by_workers(recipe("runs/a"), options("local")).root == Path("runs/a")


def test_a_relative_run_folder_is_refused_where_workers_are_elsewhere():
    far = options(job_endpoint="far.test:1", pools=["far.test:2"])
    with pytest.raises(RecipeError, match=r"output.root: 'runs/a' is a path in the current folder.*--out /shared/run"):
        seen_by_workers(recipe("runs/a"), far)
    assert seen_by_workers(recipe("/shared/a"), far).root == Path("/shared/a")
    assert seen_by_workers(recipe("s3://b/a"), far).output.root == "s3://b/a"


def test_a_misspelt_option_is_refused_on_this_machine_too():
    with pytest.raises(RecipeError, match="--direct_num_wokers: no option of Beam"):
        seen_by_workers(recipe("a"), RunnerOptions("local", beam_options=("--direct_num_wokers=2",)))


def test_an_engine_is_looked_at_once_in_an_invocation(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr("pipeline.execution.preflight.look_at_engine", lambda *asked: looks.append(asked) or ["a note"])
    embedded = options(job_endpoint="embed")
    assert [try_engine(embedded, tmp_path), try_engine(embedded, tmp_path), try_engine(options("local"), tmp_path)] == [
        ["a note"],
        [],
        [],
    ]
    assert [(backend.name, endpoint, root) for backend, endpoint, root in looks] == [("portable", "embed", tmp_path)]


def test_how_wide_a_run_is_is_known_before_it_is_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    flink = FakeFlink(taskmanagers=3, slots=6, free=5)
    session = {"job_endpoint": "localhost:1", "master": flink.address}
    try:
        assert with_width(options("flink", **session), tmp_path).parallelism == 5
        assert with_width(options("flink", parallelism=2, **session), tmp_path).parallelism == 2
        flink.free = 0
        with pytest.raises(RecipeError, match="has no free slot"):
            with_width(options("flink", **session), tmp_path)
        keep(tmp_path, JobNote("tessera-score-1", "score", "flink", "localhost:1", flink.address))
        assert with_width(options("flink", **session), tmp_path).parallelism == 6  # what is left there is ended first
    finally:
        flink.close()
    assert with_width(options("flink", jar="x.jar"), tmp_path).parallelism == 3
    assert with_width(options("spark", jar="x.jar"), tmp_path).backend.config.parallelism == 3
    assert with_width(options("portable", job_endpoint="far.test:1"), tmp_path).parallelism == 0
    assert with_width(RunnerOptions("flink", 4, config=RunnerConfig(jar="x.jar")), tmp_path).parallelism == 4
