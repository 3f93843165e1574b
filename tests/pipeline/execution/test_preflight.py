"""pipeline/execution/preflight.py: each misuse is answered before anything is sent, with its cause and its remedy."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2 as api
from apache_beam.portability.api import beam_fn_api_pb2_grpc as api_grpc

from pipeline.execution import preflight
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.java import free_ports
from pipeline.execution.preflight import look_at_engine, look_before
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError
from tests.support.engines import FakeFlink, FakeJobServer
from tests.support.paths import ROOT

slow = pytest.mark.slow


@pytest.fixture
def engine():
    server, flink = FakeJobServer(("object_reuse", "number_of_execution_retries")), FakeFlink()
    yield server, flink
    server.close()
    flink.close()


def look(root, runner="portable", given=(), **config):
    backend = RunnerOptions(runner, beam_options=tuple(given), config=RunnerConfig(**config)).backend
    backend.check()
    return look_at_engine(backend, backend.config.job_endpoint, root)


def refused(root, runner="portable", given=(), **config):
    with pytest.raises(RecipeError) as error:
        look(root, runner, given, **config)
    return str(error.value)


def closed():
    return f"localhost:{free_ports(1)[0]}"


def test_a_closed_port_of_the_job_server(tmp_path):
    nowhere = closed()
    said = refused(tmp_path, job_endpoint=nowhere)
    assert said.startswith(f"runner.job_endpoint: nobody answers at {nowhere}; start a Beam job server there")


def test_addresses_are_tried_before_java_is_started(engine):
    nowhere = closed()
    config = RunnerConfig(jar=__file__, pools=[nowhere], master=engine[1].address)
    with pytest.raises(RecipeError, match=f"no worker pool answers at {nowhere}"):
        look_before(RunnerOptions("flink", config=config).backend)
    config = RunnerConfig(jar=__file__, master=nowhere)
    with pytest.raises(RecipeError, match="Flink does not answer"):
        look_before(RunnerOptions("flink", config=config).backend)


def test_a_spark_master_is_tried_before_java_is_started(engine):
    nowhere = f"spark://{closed()}"
    config = RunnerConfig(jar=__file__, master=nowhere, pools=["localhost:1"])
    with pytest.raises(RecipeError, match=f"no Spark master answers at {nowhere}"):
        look_before(RunnerOptions("spark", config=config).backend)


def test_a_server_of_http_is_no_pool(engine, monkeypatch):
    monkeypatch.setattr("pipeline.execution.addresses.READY_S", 1.0)
    address = engine[1].address.removeprefix("http://")
    for config in ({"pools": [address]}, {"environment": "external", "environment_config": address}):
        with pytest.raises(RecipeError, match=f"what answers at {address} is no worker pool"):
            look_before(RunnerOptions("flink", config=RunnerConfig(jar=__file__, **config)).backend)


def test_a_flink_whose_page_is_not_known_is_told_of(tmp_path, engine):
    said = look(tmp_path, "flink", job_endpoint=engine[0].endpoint)
    assert len(said) == 1
    assert "runner.rest does not say where Flink's page is" in said[0]
    assert look(tmp_path, "flink", job_endpoint=engine[0].endpoint, rest=engine[1].address) == []


def test_something_else_than_a_job_server(tmp_path, engine, monkeypatch):
    monkeypatch.setattr("pipeline.execution.job_service.TIMEOUT_S", 1.0)
    address = engine[1].address.removeprefix("http://")
    assert f"what answers at {address} is no Beam job server" in refused(tmp_path, job_endpoint=address)


def test_an_engine_that_can_work_is_told_of_by_nothing(tmp_path, engine):
    server, flink = engine
    config = {"job_endpoint": server.endpoint, "master": flink.address, "environment": "loopback"}
    assert look(tmp_path, "flink", ["--object_reuse"], **config) == []
    assert look(tmp_path, job_endpoint="embed") == []


def test_options_that_neither_side_knows(tmp_path, engine):
    assert "--object_reuze: no option of Beam or of the job server; the nearest: --object_reuse" in refused(
        tmp_path, given=["--object_reuze"], job_endpoint=engine[0].endpoint
    )
    dataflow = {"project": "p", "region": "r", "temp_location": "gs://b/t"}
    assert "--objectreuse: no option of Beam;" in refused(tmp_path, "dataflow", ["--objectreuse"], **dataflow)
    assert look(tmp_path, "dataflow", ["--machine_type=n"], **dataflow) == []


@pytest.mark.parametrize(
    ("has", "workers", "said"),
    [
        ({"taskmanagers": 0, "slots": 0, "free": 0}, 0, "has no TaskManager; start one or more"),
        ({"free": 0}, 0, "has no free slot: 2 of 2 are taken by other jobs"),
        ({}, 3, "got 3, and Flink at .* has 2 free slots of 2 in 1 TaskManagers; ask for that many at most"),
    ],
)
def test_slots_that_are_not_there(tmp_path, engine, monkeypatch, has, workers, said):
    monkeypatch.setattr(preflight, "BACK_S", 0.1)
    server, flink = engine
    for name, value in has.items():
        setattr(flink, name, value)
    config = {"job_endpoint": server.endpoint, "master": flink.address, "environment": "loopback"}
    with pytest.raises(RecipeError, match=said):
        look(tmp_path, "flink", parallelism=workers, **config)


def test_slots_of_a_job_that_was_cancelled_come_back(tmp_path, engine, monkeypatch):
    server, flink = engine
    flink.free = 0
    monkeypatch.setattr("pipeline.execution.preflight.time.sleep", lambda seconds: setattr(flink, "free", 2))
    assert look(tmp_path, "flink", job_endpoint=server.endpoint, master=flink.address, environment="loopback") == []


def test_a_flink_that_does_not_answer(tmp_path, engine):
    nowhere = closed()
    said = refused(tmp_path, "flink", job_endpoint=engine[0].endpoint, master=nowhere, environment="loopback")
    assert said.startswith(f"runner.master, runner.rest: Flink does not answer (Flink's REST at http://{nowhere}: ")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "there is no `docker`"),
        ("echo Cannot connect to the Docker daemon >&2; exit 1", "Docker cannot be used (Cannot connect to the Docker"),
        ("sleep 60", "Docker does not answer within"),
    ],
)
def test_docker_that_is_not_there(tmp_path, engine, monkeypatch, script, said):
    if script:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    monkeypatch.setattr(preflight, "DOCKER_S", 1.0 if script and "sleep" in script else 30.0)
    told = refused(tmp_path, job_endpoint=engine[0].endpoint, environment="docker")
    assert said in told
    assert "start Docker, or give runner.pools" in told


@pytest.mark.parametrize(
    ("config", "said"), [("boot", "wanted JSON"), ('{"command": "/none"}', "'/none' is no program")]
)
def test_a_worker_program_that_is_not_there(tmp_path, engine, config, said):
    told = refused(tmp_path, job_endpoint=engine[0].endpoint, environment="process", environment_config=config)
    assert said in told


def test_a_closed_port_of_a_pool(tmp_path, engine):
    nowhere = closed()
    said = refused(tmp_path, job_endpoint=engine[0].endpoint, pools=[nowhere])
    assert said.startswith(f"runner.pools: no worker pool answers at {nowhere}; start one beside each")


class Silent(api_grpc.BeamFnExternalWorkerPoolServicer):
    """A pool whose Python ends at once for want of Beam: nobody hears of it."""

    def StartWorker(self, request, context):
        return api.StartWorkerResponse()

    def StopWorker(self, request, context):
        return api.StopWorkerResponse()


@slow
def test_a_pool_without_beam(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(preflight, "PROBE_S", 0.5)
    monkeypatch.setattr(preflight, "IMPORTS", 0.0)
    server = grpc.server(ThreadPoolExecutor(2))
    api_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Silent(), server)
    address = f"localhost:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        said = refused(tmp_path, job_endpoint=engine[0].endpoint, pools=[address])
    finally:
        server.stop(None).wait()
    assert f"the pool at {address} starts no worker in time: its `python` lacks Beam" in said
    assert not list((tmp_path / "logs").glob("probe-*"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """The address of a worker pool of ours."""
    logs = tmp_path_factory.mktemp("pool")
    command = [sys.executable, "-m", "pipeline.execution.pool", "--port", "0", "--logs", str(logs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    yield process.stdout.readline().split(",")[0].rpartition(" ")[2]
    process.terminate()
    process.wait()


@slow
def test_a_pool_of_this_run_is_taken_and_one_of_other_code_or_that_sees_another_folder_is_not(
    tmp_path, engine, pool, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(preflight, "OURS_S", 300.0)
    config = {"job_endpoint": engine[0].endpoint, "pools": [pool]}
    assert look(tmp_path, **config) == []

    ours = preflight.itself()
    with monkeypatch.context() as patch:
        patch.setattr(preflight, "itself", lambda: {**ours, "Beam": "9.9.9"})
        assert f"the pool at {pool} has another Beam: got {ours['Beam']}, wanted 9.9.9" in refused(tmp_path, **config)
        patch.setattr(preflight, "itself", lambda: {**ours, "code of this package": "f" * 64})
        assert "has another code of this package: got" in refused(tmp_path, **config)

    monkeypatch.setattr(preflight, "write_bytes", lambda path, data: None)  # as where workers see another folder
    said = refused(tmp_path, **config)
    assert f"output.root: workers of the pool at {pool} do not see the run folder {tmp_path}" in said


def test_a_pool_that_lacks_the_package_says_so(tmp_path):
    error = {"error": "Traceback\nModuleNotFoundError: No module named 'pipeline'"}
    with pytest.raises(RecipeError, match="cannot do this run's work: its Python lacks this package; start the pool"):
        preflight._accept("localhost:1", error, "", tmp_path)
    other = {"error": '<_InactiveRpcError\n\tstatus = StatusCode.UNIMPLEMENTED\n\tdetails = "no such method"\n>'}
    with pytest.raises(RecipeError, match="what answers at localhost:1 is no worker pool"):
        preflight._accept("localhost:1", other, "", tmp_path)
    lost = {"error": '<_InactiveRpcError\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "Socket closed"\n>'}
    with pytest.raises(RecipeError, match="cannot do this run's work: Socket closed; start"):
        preflight._accept("localhost:1", lost, "", tmp_path)
    assert "could not be tried from here" in preflight._accept("far.test:1", None, "", tmp_path)
