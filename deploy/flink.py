"""A Flink session cluster: its configuration, and the commands of its processes."""

from pathlib import Path

from deploy.jars import HOME, job_server_jar
from deploy.settings import Settings

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
QUIET = "-Dorg.slf4j.simpleLogger.showDateTime=true"
JOB_MANAGER_HEAP = "-Xmx384m"
TASK_MANAGER_HEAP = "-Xmx320m"
OPENED = ("java.base/java.lang", "java.base/java.util", "java.base/java.net", "java.base/java.util.concurrent.atomic")

MEMORY = {
    "jobmanager.memory.process.size": "768m",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.heap.size": "192m",
    "taskmanager.memory.framework.off-heap.size": "96m",
    "taskmanager.memory.task.off-heap.size": "32m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.jvm-metaspace.size": "192m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
}
"""What Flink's start scripts would work out from the size of a machine: without all of it a TaskManager ends with a
bare IllegalArgumentException."""


def configuration(settings: Settings, folder: Path) -> dict[str, str | int | float]:
    """Return the whole configuration of the session cluster."""
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": settings.flink_rpc,
        "jobmanager.bind-host": "127.0.0.1",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": settings.flink_page,
        "blob.server.port": settings.flink_blob,
        "taskmanager.numberOfTaskSlots": settings.slots,
        "taskmanager.cpu.cores": 1.0,
        **MEMORY,
        "io.tmp.dirs": str(folder / "tmp"),
        "heartbeat.interval": 1000,
        "heartbeat.timeout": 5000,
        # no restart-strategy: a job fails with its first task, and the run hands over what is left, counting deaths
        "slot.request.timeout": 20_000,
        # every process has Beam's libraries already: a second copy of their classes per job fails when the job ends
        "classloader.resolve-order": "parent-first",
    }


def write_configuration(settings: Settings, folder: Path) -> Path:
    """Write the configuration of all Flink processes and return its folder."""
    conf = folder / "flink"
    conf.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    lines = [f"{name}: {value}" for name, value in configuration(settings, folder).items()]
    (conf / "config.yaml").write_text("\n".join(lines) + "\n")
    return conf


def java(heap: str, home: Path = HOME) -> list[str]:
    """Return the start of a command: Java with Flink's libraries."""
    opened = [f"--add-opens={name}=ALL-UNNAMED" for name in OPENED]
    return ["java", heap, "-XX:+UseSerialGC", QUIET, *opened, "-cp", str(home / "flink" / "*")]


def commands(settings: Settings, folder: Path, home: Path = HOME) -> dict[str, list[str]]:
    """Return name -> command of the JobManager and the TaskManagers, in the order of their start."""
    conf = ["--configDir", str(folder / "flink")]
    found = {"flink-jobmanager": [*java(JOB_MANAGER_HEAP, home), JOB_MANAGER, *conf]}
    for number in range(1, settings.task_managers + 1):
        found[f"flink-taskmanager-{number}"] = [*java(TASK_MANAGER_HEAP, home), TASK_MANAGER, *conf]
    return found


def runner_keys(settings: Settings, folder: Path, home: Path = HOME) -> dict[str, str | int]:
    """Return what [runner] must say for a run on this cluster."""
    return {
        "jar": str(job_server_jar("flink", home)),
        "master": f"127.0.0.1:{settings.flink_page}",
        "conf": str(folder / "flink"),
        "staging": str(folder / "tmp" / "flink-artifacts"),
        "parallelism": settings.parallelism,
    }
