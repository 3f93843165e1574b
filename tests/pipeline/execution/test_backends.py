"""pipeline/execution/backends.py: how wide a step runs, and what Beam is told for each runner."""

import os

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.execution.backends import CLUSTERS, RUNNERS, RunnerOptions, pipeline_options
from pipeline.execution.job import Job


def options_of(runner, *beam_options):
    return pipeline_options(Job("module:Step", "run", {}, [], "", runner=runner, beam_options=list(beam_options)))


@pytest.mark.parametrize(("workers", "cards", "processes"), [(5, "0,1", 5), (0, "0,1", 2), (0, "", 3)])
def test_workers_are_as_asked_else_one_per_gpu_else_one_per_core(monkeypatch, workers, cards, processes):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})  # three cores are ours
    assert RunnerOptions(workers=workers).processes == processes


def test_local_is_beams_own_runner_by_name_in_one_process():
    runner, options = options_of("local")
    assert isinstance(runner, FnApiRunner)
    assert options.view_as(DirectOptions).direct_num_workers == 1
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"


def test_no_beam_option_makes_a_local_worker_wider():
    _, options = options_of("local", "--direct_num_workers=8", "--direct_running_mode=multi_processing")
    assert options.view_as(DirectOptions).direct_num_workers == 1  # the supervisor counts a death per process
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"


@pytest.mark.parametrize("name", [name for name in RUNNERS if name != "local"])
def test_a_cluster_is_named_to_beam_with_the_users_options(name):
    runner, options = options_of(name, "--job_name=tessera")
    assert runner is None
    assert options.view_as(StandardOptions).runner == CLUSTERS[name]
    assert options.get_all_options()["job_name"] == "tessera"
    assert "direct_num_workers" not in options.get_all_options(drop_default=True)


@pytest.mark.parametrize(
    ("runner", "workers", "options", "lanes"),
    [
        ("local", 4, (), 1),  # they take from one budget
        ("flink", 4, ("--parallelism=2",), 4),
        ("flink", 0, ("--parallelism=2",), 2),
        ("dataflow", 0, ("--num_workers=2", "--max_num_workers=6"), 6),
        ("spark", 0, ("--job_name=parallelism=3",), 0),
    ],
)
def test_how_many_take_their_part_of_a_budget(runner, workers, options, lanes):
    assert RunnerOptions(runner, workers, options).parallelism == lanes
