"""pipeline/execution/pool_process.py: a fork serves the engine that its environment names."""

import sys
import types

from pipeline.execution.pool_process import STATE_CACHE, PoolServer


def test_a_fork_serves_the_engine_that_its_environment_names(monkeypatch, capsys, tmp_path):
    asked = []

    class Harness:
        def __init__(self, address, worker_id, state_cache_size):
            asked.extend([address, worker_id, state_cache_size, (tmp_path / "reached").exists()])

        def run(self):
            asked.append((tmp_path / "reached").exists())

    name = "apache_beam.runners.worker.sdk_worker"
    stand_in = types.ModuleType(name)
    stand_in.SdkHarness = Harness
    monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setenv("WORKER_ID", "1-1")
    monkeypatch.setenv("CONTROL_ADDRESS", "localhost:5")
    monkeypatch.setenv("REACHED", str(tmp_path / "reached"))
    assert PoolServer.work(object.__new__(PoolServer), {}) == 0
    assert asked == ["localhost:5", "1-1", STATE_CACHE, False, True]
    assert "worker 1-1, process " in capsys.readouterr().err
