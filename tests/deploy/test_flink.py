"""deploy/flink.py: the configuration says all that start scripts would work out, and processes take it."""

from deploy.flink import commands, configuration, runner_keys, write_configuration
from deploy.settings import Settings

NEEDED = {
    "taskmanager.cpu.cores",
    "taskmanager.memory.task.heap.size",
    "taskmanager.memory.task.off-heap.size",
    "taskmanager.memory.framework.heap.size",
    "taskmanager.memory.framework.off-heap.size",
    "taskmanager.memory.network.min",
    "taskmanager.memory.network.max",
    "taskmanager.memory.managed.size",
    "taskmanager.memory.jvm-metaspace.size",
    "taskmanager.memory.jvm-overhead.min",
    "taskmanager.memory.jvm-overhead.max",
    "taskmanager.numberOfTaskSlots",
    "jobmanager.memory.process.size",
    "rest.port",
    "blob.server.port",
}
"""Without one of these a process ends with a bare IllegalArgumentException, or listens somewhere else."""


def test_the_configuration_is_written_as_flink_reads_it(tmp_path):
    settings = Settings(flink_page=5, slots=3)
    conf = write_configuration(settings, tmp_path)
    assert conf == tmp_path / "flink"
    lines = dict(line.split(": ", 1) for line in (conf / "config.yaml").read_text().splitlines())
    assert lines == {name: str(value) for name, value in configuration(settings, tmp_path).items()}
    assert set(lines) >= NEEDED
    assert (lines["rest.port"], lines["taskmanager.numberOfTaskSlots"]) == ("5", "3")
    assert lines["taskmanager.memory.network.min"] == lines["taskmanager.memory.network.max"]
    assert not [name for name in lines if name.startswith("restart-strategy")]  # it would go before a job's own
    assert lines["io.tmp.dirs"] == str(tmp_path / "tmp")
    assert {lines[name] for name in lines if name.endswith("bind-host")} == {"127.0.0.1"}  # nobody else reaches it


def test_there_is_a_jobmanager_and_as_many_taskmanagers_as_asked(tmp_path):
    found = commands(Settings(task_managers=2), tmp_path, tmp_path)
    assert list(found) == ["flink-jobmanager", "flink-taskmanager-1", "flink-taskmanager-2"]
    assert all(command[-2:] == ["--configDir", str(tmp_path / "flink")] for command in found.values())
    assert all(str(tmp_path / "flink" / "*") in command for command in found.values())


def test_a_run_is_led_to_the_session_cluster_with_its_configuration(tmp_path):
    keys = runner_keys(Settings(flink_page=5), tmp_path, tmp_path)
    assert (keys["master"], keys["conf"]) == ("127.0.0.1:5", str(tmp_path / "flink"))
    assert keys["jar"] == str(tmp_path / "flink-job-server.jar")
