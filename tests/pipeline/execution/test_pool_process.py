"""pipeline/execution/pool_process.py: a fork serves the engine that its environment names."""

import sys
import types

from pipeline.execution.pool_process import STATE_CACHE, PoolServer


def test_a_fork_serves_the_engine_that_its_environment_names(monkeypatch, capsys):
    asked = []

    class Harness:
        def __init__(self, address, worker_id, state_cache_size):
            asked.extend([address, worker_id, state_cache_size])

        def run(self):
            asked.append("run")

    name = "apache_beam.runners.worker.sdk_worker"
    stand_in = types.ModuleType(name)
    stand_in.SdkHarness = Harness
    monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setenv("WORKER_ID", "1-1")
    monkeypatch.setenv("CONTROL_ADDRESS", "localhost:5")
    assert PoolServer.work(object.__new__(PoolServer), {}) == 0
    assert asked == ["localhost:5", "1-1", STATE_CACHE, "run"]
    assert "worker 1-1, process " in capsys.readouterr().err
