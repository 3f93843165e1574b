"""pipeline/execution/pool.py: SDK processes come when an engine asks, and go when it says so or the pool is gone."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import apache_beam as beam
import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2 as api
from apache_beam.portability.api import beam_fn_api_pb2_grpc as api_grpc
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import ExternalEnvironment

from pipeline.execution import pool as module
from pipeline.execution.pool import about, main
from tests.support.paths import ROOT
from tests.support.waiting import descendants, parents, wait_for


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def pool(logs):
    """A pool on a free port: the process, with its address."""
    command = [sys.executable, "-m", "pipeline.execution.pool", "--port", "0", "--logs", str(logs)]
    # no `python` on PATH: Beam's own pool would start that one, or none
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        process.address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())[0]
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(address, *steps):
    """Run ten elements through steps with the pool's processes, on Beam's own runner."""
    runner = FnApiRunner(default_environment=ExternalEnvironment(address))
    with beam.Pipeline(runner=runner) as pipeline:
        rows = pipeline | beam.Create(range(10)) | beam.Reshuffle()
        for number, step in enumerate(steps):
            rows = rows | str(number) >> step
    return rows


def where(row):
    """What an SDK process is told of where it runs."""
    names = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "WORKER_ID")
    return f"{row} {os.getpid()} {sys.executable} {[os.environ.get(name, '') for name in names]}\n"


def control_server():
    """An engine's side of the control channel, which takes any worker and asks nothing of it."""
    connected = threading.Event()

    class Control(api_grpc.BeamFnControlServicer):
        def Control(self, answers, context):
            connected.set()
            yield from answers

    server = grpc.server(ThreadPoolExecutor(4))
    api_grpc.add_BeamFnControlServicer_to_server(Control(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return server, address, connected


@pytest.fixture
def control():
    server, address, _ = control_server()
    yield address
    server.stop(0)


def ask(address, worker, control):
    """Ask for an SDK process."""
    with grpc.insecure_channel(address) as channel:
        where = endpoints_pb2.ApiServiceDescriptor(url=control)
        stub = api_grpc.BeamFnExternalWorkerPoolStub(channel)
        return stub.StartWorker(api.StartWorkerRequest(worker_id=worker, control_endpoint=where), timeout=120)


def started(log):
    """Return the process numbers that a log names."""
    return [int(number) for number in re.findall(r"process (\d+)", log.read_text())] if log.exists() else []


def test_beam_runs_a_pipeline_in_processes_of_the_pool(pool, logs, tmp_path):
    out = tmp_path / "rows"
    run(pool.address, beam.Map(where), beam.Map(lambda line: out.open("a").write(line)))
    lines = sorted(out.read_text().splitlines())
    assert [line.split()[0] for line in lines] == [str(row) for row in range(10)]
    (pid,) = {int(line.split()[1]) for line in lines}
    assert pid in started(logs / "worker-0.log")
    assert {line.split()[2] for line in lines} == {sys.executable}
    assert all(line.rpartition("[")[2].startswith("'1', '1', '") for line in lines)
    wait_for(lambda: pid not in parents())  # stopped by the runner, and reaped


def test_a_process_prints_a_lot_and_its_log_stays_short(pool, logs):
    run(pool.address, beam.Map(lambda row: print("x" * 400_000)))  # 64 KiB fill a pipe that nobody reads
    wait_for(lambda: 0 < (logs / "worker-0.log").stat().st_size <= module.MOST_LOG)


def test_each_process_has_a_number_which_is_free_again_after_its_end(pool, logs, control):
    for worker in ("a", "b"):
        assert ask(pool.address, worker, control).error == ""
    first, second = [logs / f"worker-{number}.log" for number in (0, 1)]
    wait_for(lambda: started(first) and started(second))
    with grpc.insecure_channel(pool.address) as channel:
        stub = api_grpc.BeamFnExternalWorkerPoolStub(channel)
        stub.StopWorker(api.StopWorkerRequest(worker_id="a"), timeout=60)
        stub.StopWorker(api.StopWorkerRequest(worker_id="unknown"), timeout=60)
    assert started(first)[0] not in parents()
    assert started(second)[0] in parents()
    os.kill(started(second)[0], signal.SIGKILL)
    wait_for(lambda: started(second)[0] not in parents())
    for worker in range(100):  # the pool may not have heard of the last one's end yet
        assert ask(pool.address, str(worker), control).error == ""
        if len(started(first)) == len(started(second)) == 2:
            break
    else:
        pytest.fail("no process has the number of one that ended")


def test_engines_that_use_the_same_ids_end_their_own_processes(pool, logs, control):
    """TaskManagers of one machine share a pool, and each calls its first worker 1-1: one's end stopped another's."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each channel
    where = endpoints_pb2.ApiServiceDescriptor(url=control)
    with grpc.insecure_channel(pool.address, options) as one, grpc.insecure_channel(pool.address, options) as other:
        stubs = [api_grpc.BeamFnExternalWorkerPoolStub(channel) for channel in (one, other)]
        for number, stub in enumerate(stubs):
            stub.StartWorker(api.StartWorkerRequest(worker_id="1-1", control_endpoint=where), timeout=120)
            wait_for(lambda log=logs / f"worker-{number}.log": started(log))
        first, second = [started(logs / f"worker-{number}.log")[0] for number in (0, 1)]
        with grpc.insecure_channel(pool.address, options) as third:
            stub = api_grpc.BeamFnExternalWorkerPoolStub(third)
            stub.StopWorker(api.StopWorkerRequest(worker_id="1-1"), timeout=60)
        assert {first, second} <= set(parents())
        stubs[0].StopWorker(api.StopWorkerRequest(worker_id="1-1"), timeout=60)
        assert first not in parents()
        assert second in parents()


def test_a_process_that_is_killed_before_it_has_reached_its_engine_is_started_again(pool, logs):
    """Flink waited for it for ever ("Still waiting for startup of environment"), and the run until runner.start_s."""
    log = logs / "worker-0.log"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        assert ask(pool.address, "a", f"127.0.0.1:{silent.getsockname()[1]}").error == ""
        for starts in range(1, module.MOST_STARTS + 1):
            wait_for(lambda starts=starts: len(started(log)) == starts)
            os.kill(started(log)[-1], signal.SIGKILL)
    assert len(re.findall("worker a, ", log.read_text())) == module.MOST_STARTS


def test_a_process_that_is_killed_later_is_its_engines_business(pool, logs):
    server, address, connected = control_server()
    try:
        assert ask(pool.address, "a", address).error == ""
        assert connected.wait(60)
        os.kill(started(logs / "worker-0.log")[0], signal.SIGKILL)
        wait_for(lambda: ask(pool.address, "b", address).error == "" and len(started(logs / "worker-0.log")) == 2)
        assert "worker a, " not in (logs / "worker-0.log").read_text().splitlines()[-1]
    finally:
        server.stop(0)


def test_a_process_ends_with_the_control_channel(pool, logs):
    server, address, connected = control_server()
    assert ask(pool.address, "a", address).error == ""
    wait_for(lambda: started(logs / "worker-0.log"))
    (pid,) = started(logs / "worker-0.log")
    assert connected.wait(60)
    server.stop(0)
    wait_for(lambda: pid not in parents())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_pool(pool, logs, control, number):
    assert ask(pool.address, "a", control).error == ""
    wait_for(lambda: started(logs / "worker-0.log"))
    below = descendants(pool.pid)
    assert set(started(logs / "worker-0.log")) < below  # and the process that forks them
    pool.send_signal(number)
    assert pool.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    wait_for(lambda: not below & set(parents()))


def test_the_process_that_forks_them_is_started_again(pool, logs, control):
    assert ask(pool.address, "a", control).error == ""
    wait_for(lambda: started(logs / "worker-0.log"))
    (pid,) = started(logs / "worker-0.log")
    os.kill(parents()[pid], signal.SIGKILL)
    wait_for(lambda: pid not in parents())
    assert ask(pool.address, "b", control).error == ""
    wait_for(lambda: any("worker b, " in path.read_text() for path in logs.glob("worker-*.log")))


def test_a_pool_that_can_start_no_process_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "PROCESS", (sys.executable, "-c", "import sys; sys.exit('no module named beam')"))
    pool = module.Pool(tmp_path)
    request, asking = api.StartWorkerRequest(worker_id="a"), types.SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:5")
    assert pool.StartWorker(request, asking).error.endswith(": no module named beam")
    monkeypatch.setattr(module, "PROCESS", (sys.executable, "-c", "input()"))
    monkeypatch.setattr(module, "START_S", 0.1)
    assert pool.StartWorker(request, asking).error.endswith("no SDK process within 0 s: its Python says nothing")
    pool.logs = tmp_path / "none"
    assert "No such file" in pool.StartWorker(request, asking).error
    pool.close()


def test_a_pool_says_which_versions_it_has(pool, logs):
    said = about(pool.address)
    assert said == module.versions() | {"executable": sys.executable, "process": str(pool.pid), "logs": str(logs)}
    assert said["beam"] == beam.__version__


def test_another_program_and_a_closed_port_are_told_apart(control):
    assert about(control) is None
    before = time.monotonic()
    with pytest.raises(ConnectionError, match="no worker pool answers at "):
        about("127.0.0.1:1")
    assert time.monotonic() - before < 60


def test_a_second_pool_on_a_port_is_refused(pool, tmp_path, capsys):
    port = pool.address.rpartition(":")[2]
    assert main(["--port", port, "--logs", str(tmp_path)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: another program has this port" in capsys.readouterr().err


def test_a_long_log_loses_its_first_half(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOG", 10)
    (tmp_path / "worker-0.log").write_bytes(b"0123456789")
    (tmp_path / "worker-1.log").write_bytes(b"0123456789a")
    monkeypatch.setattr(module, "ForkServer", lambda command: None)
    module.Pool(tmp_path).shorten_logs()
    assert (tmp_path / "worker-0.log").read_bytes() == b"0123456789"
    assert (tmp_path / "worker-1.log").read_bytes() == b"6789a"
