"""pipeline/execution/backends.py: how wide a step runs, and what Beam is told for each runner."""

import os

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.execution.backends import BACKENDS, RUNNERS, RunnerOptions, pipeline_options
from pipeline.execution.job import Job
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError


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
    assert options.view_as(StandardOptions).runner == BACKENDS[name].beam_runner
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


def backend(runner, *given, workers=0, **config):
    return RunnerOptions(runner, workers, given, config=RunnerConfig(**config)).backend


def test_flink_inside_a_job_server_of_our_own(tmp_path):
    flink = backend("flink", workers=2, classpath=str(tmp_path), java="/opt/java")
    flink.check()
    server = flink.server()
    assert (server.java, server.loads[:2]) == ("/opt/java", ("-cp", f"{tmp_path}/*"))
    assert server.loads[2] == "org.apache.beam.runners.flink.FlinkJobServerDriver"
    assert server.options == ("--flink-master=[local]",)
    assert (flink.environment, flink.is_here, flink.rest) == ("LOOPBACK", True, "")
    assert flink.beam("localhost:7", "a-job", 2) == [
        "--parallelism=2",
        "--number_of_execution_retries=0",
        "--job_endpoint=localhost:7",
        "--job_name=a-job",
        "--environment_type=LOOPBACK",
        "--sdk_worker_parallelism=1",
    ]


def test_a_flink_cluster_with_a_pool_beside_each_of_its_processes():
    flink = backend("flink", jar="x.jar", master="flink.test:8081", pools=["a.test:5", "b.test:5"], staging="/shared/s")
    flink.check()
    assert flink.server().loads == ("-jar", "x.jar")
    assert flink.server().options == ("--flink-master=flink.test:8081", "--artifacts-dir", "/shared/s")
    assert (flink.rest, flink.environment, flink.is_here) == ("http://flink.test:8081", "EXTERNAL", False)
    assert "--environment_config=a.test:5" in flink.beam("localhost:7", "a-job", 0)
    named = backend(
        "flink", jar="x.jar", master="flink.test:8081", pools=["a.test:5"], environment_config="localhost:5"
    )
    assert "--environment_config=localhost:5" in named.beam("localhost:7", "a-job", 0)


def test_spark_is_opened_to_what_it_looks_into_and_is_as_wide_as_asked():
    spark = backend("spark", workers=3, jar="y.jar")
    assert spark.server().options == ("--spark-master-url", "local[3]")
    assert "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED" in spark.server().loads
    assert spark.server().loads[-2:] == ("-jar", "y.jar")
    cluster = backend("spark", workers=3, jar="y.jar", master="spark://m.test:7077", environment="process")
    assert "-Dspark.cores.max=3" in cluster.server().loads
    with pytest.raises(RecipeError, match=r'environment_config = \'."command"'):
        cluster.check()


def test_dataflow_is_told_project_region_and_hints():
    flow = backend(
        "dataflow",
        *("--project=p", "--max_num_workers", "5", "--label=a=b"),
        region="r",
        temp_location="gs://b/t",
        min_ram="16GB",
        accelerator="type:t4;count:1",
    )
    flow.check()
    assert flow.beam("", "a-job", flow.config.parallelism) == [
        "--job_name=a-job",
        "--project=p",
        "--region=r",
        "--temp_location=gs://b/t",
        "--max_num_workers=5",
        "--resource_hint=accelerator=type:t4;count:1",
        "--resource_hint=min_ram=16GB",
        "--label=a=b",
    ]
    assert not flow.is_here


@pytest.mark.parametrize(
    ("runner", "config", "said"),
    [
        ("flink", {}, "one of runner.job_endpoint .* runner.jar .* or runner.classpath"),
        ("spark", {}, "one of runner.job_endpoint .* runner.jar .* or runner.classpath"),
        ("portable", {}, "give runner.job_endpoint, the HOST:PORT"),
        ("flink", {"jar": "x.jar", "classpath": "y"}, "got runner.jar = 'x.jar' and runner.classpath = 'y', .* one of"),
        ("portable", {"jar": "x.jar"}, "give runner.job_endpoint, the HOST:PORT"),
        ("dataflow", {"project": "p"}, "give runner.region, runner.temp_location"),
        ("portable", {"job_endpoint": "far.test:1"}, r"give pools = \["),
        ("flink", {"jar": "x.jar", "master": "far.test:1"}, r"give pools = \["),
        ("portable", {"job_endpoint": "localhost:1", "environment": "external"}, "needs the address of a worker pool"),
    ],
)
def test_what_a_runner_cannot_do_without_is_said_at_once(runner, config, said):
    with pytest.raises(RecipeError, match=said):
        backend(runner, **config).check()


def test_a_spark_that_runs_already_says_itself_how_wide_it_is():
    with pytest.raises(RecipeError, match="--workers 2: Spark's own job server"):
        backend("spark", workers=2, job_endpoint="localhost:1").check()


@pytest.mark.parametrize(
    "master", ["", "local", "local[3]", "local[*]", "spark://a.test:7077,b.test:7077", "yarn", "k8s://https://a:6443"]
)
def test_a_master_of_spark(master):
    backend("spark", jar="y.jar", master=master, pools=["localhost:5"]).check()


@pytest.mark.parametrize("master", ["banana", "spark://a.test", "a.test:7077", "local[x]", "http://a.test:8080"])
def test_what_is_no_master_of_spark_is_refused_with_the_choices(master):
    with pytest.raises(RecipeError, match=r"runner.master: got .*, wanted Spark's: local, local\[N\], .* or k8s://"):
        backend("spark", jar="y.jar", master=master, pools=["localhost:5"]).check()


def test_flinks_configuration_is_a_folder_that_holds_it(tmp_path):
    flink = backend("flink", jar="x.jar", conf=str(tmp_path))
    with pytest.raises(RecipeError, match=r"runner.conf: got .*, wanted a folder that holds Flink's config.yaml or"):
        flink.check()
    (tmp_path / "config.yaml").write_text("")
    flink.check()


def test_options_behind_the_dashes_go_before_the_recipe_and_workers_before_both():
    flink = backend("flink", "--parallelism=2", "--job_endpoint", "b:2", workers=4, job_endpoint="a:1", parallelism=1)
    assert (flink.config.job_endpoint, flink.config.parallelism) == ("b:2", 4)
    loop = backend("portable", "--environment_type=LOOPBACK", "--environment_cache_millis=5", job_endpoint="far.test:1")
    assert loop.environment == "LOOPBACK"
    assert loop.beam("far.test:1", "j", 0)[-1] == "--environment_cache_millis=5"
    with pytest.raises(RecipeError, match=r"--parallelism: .* \(got 'nine'\)"):
        backend("flink", "--parallelism=nine")


@pytest.mark.parametrize(
    ("config", "here"),
    [
        ({"job_endpoint": "localhost:1"}, True),
        ({"job_endpoint": "127.0.0.1:1", "pools": ["localhost:2"]}, True),
        ({"job_endpoint": "localhost:1", "environment": "docker"}, False),
        ({"job_endpoint": "localhost:1", "pools": ["b.test:2"]}, False),
        ({"job_endpoint": "far.test:1", "environment": "loopback"}, True),
        ({"job_endpoint": "far.test:1", "pools": ["localhost:2"]}, False),
        ({"job_endpoint": "localhost:1", "environment": "external", "environment_config": "b.test:2"}, False),
        ({"job_endpoint": "localhost:1", "environment": "external", "environment_config": "localhost:2"}, True),
        ({"job_endpoint": "localhost:1", "pools": ["localhost:2"], "environment_config": "b.test:2"}, False),
    ],
)
def test_where_workers_are_is_told_from_the_addresses(config, here):
    assert backend("portable", **config).is_here is here
