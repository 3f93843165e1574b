"""Start and end a cluster on this machine: `python -m deploy.cluster up|down|status`.

`up` starts a Flink session cluster (a JobManager, three TaskManagers of two slots), a standalone Spark (a master and a
worker) and our worker pool. `down` ends exactly those.
"""

import argparse
import json
import shlex
import shutil
import sys
import urllib.request
from pathlib import Path

from deploy import flink, spark
from deploy.jars import DRIVERS, HOME, is_fresh
from deploy.processes import Noted, end_all, end_of_log, listens, noted_in, start, wait_until
from deploy.settings import Settings, add_options, from_options, read, run_folder, write

START_S = 120.0
"""Seconds that a Java process has until its port answers."""


class NotUp(Exception):
    """The cluster cannot be started; the message says why."""


def get(url: str) -> dict[str, object]:
    """Return what an engine's REST says. Raises OSError."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        said: dict[str, object] = json.load(answer)
    return said


def slots(settings: Settings) -> int:
    """Return the free slots of the Flink cluster; 0 while it does not answer."""
    try:
        free = get(f"http://127.0.0.1:{settings.flink_page}/overview")["slots-available"]
    except (OSError, ValueError, KeyError):
        return 0
    return free if isinstance(free, int) else 0


def spark_workers(settings: Settings) -> int:
    """Return the workers that the Spark master knows to be alive; 0 while it does not answer."""
    try:
        alive = get(f"http://127.0.0.1:{settings.spark_page}/json/")["aliveworkers"]
    except (OSError, ValueError, KeyError):
        return 0
    return alive if isinstance(alive, int) else 0


def up(settings: Settings, engines: set[str], home: Path = HOME) -> None:
    """Start everything and return when it answers. Raises NotUp, with nothing left behind."""
    folder = run_folder(home)
    check(settings, engines, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(settings, folder)
    try:
        start_pool(settings, folder)
        if "flink" in engines:
            start_flink(settings, folder, home)
        if "spark" in engines:
            start_spark(settings, folder, home)
    except BaseException:
        end_all(folder)
        raise


def check(settings: Settings, engines: set[str], folder: Path) -> None:
    """Raise NotUp where the cluster cannot be started here."""
    if shutil.which("java") is None:
        raise NotUp("no `java` on PATH; install one of 11 or 17")
    if missing := sorted(name for name in engines if not is_fresh(name)):
        raise NotUp(f"no libraries of {', '.join(missing)}; get them: make cluster-jars")
    if running := [one.name for one in noted_in(folder) if one.alive]:
        raise NotUp(f"a cluster runs here already ({', '.join(running)}); end it: make cluster-down")
    if taken := settings.taken(engines):
        raise NotUp(
            f"another program listens on {', '.join(taken)}; give other ports: make cluster-up ARGS='--OPTION N'"
        )


def start_pool(settings: Settings, folder: Path) -> None:
    """Start our worker pool."""
    command = [sys.executable, "-m", "pipeline.execution.pool", "--port", str(settings.pool)]
    answers(start("pool", [*command, "--logs", str(folder / "workers")], folder), settings.pool)


def start_flink(settings: Settings, folder: Path, home: Path) -> None:
    """Start the session cluster."""
    flink.write_configuration(settings, folder)
    started = [start(name, command, folder) for name, command in flink.commands(settings, folder, home).items()]
    answers(started[0], settings.flink_page)
    if not wait_until(lambda: slots(settings) >= settings.parallelism, START_S):
        raise NotUp(f"{slots(settings)} of {settings.parallelism} slots came: {logs(started)}")


def start_spark(settings: Settings, folder: Path, home: Path) -> None:
    """Start the standalone Spark."""
    spark.make_home(home)
    environment = spark.environment(folder, home)
    commands = spark.commands(settings, folder, home)
    started = [start("spark-master", commands["spark-master"], folder, environment)]
    answers(started[0], settings.spark_master)
    started.append(start("spark-worker", commands["spark-worker"], folder, environment))
    if not wait_until(lambda: spark_workers(settings) >= 1, START_S):
        raise NotUp(f"no Spark worker came: {logs(started)}")


def answers(process: Noted, port: int) -> None:
    """Return when a process listens on its port. Raises NotUp with the end of its log."""
    wait_until(lambda: listens(port) or not process.alive, START_S)
    if not process.alive or not listens(port):
        raise NotUp(f"{process.name} does not listen on port {port}:\n{end_of_log(process.log)}")


def logs(processes: list[Noted]) -> str:
    """Return the ends of their logs."""
    return "".join(f"\n{one.name}:\n{end_of_log(one.log)}" for one in processes)


def runner_options(engine: str, settings: Settings, home: Path = HOME) -> list[str]:
    """Return the options of `pipeline run` that lead to an engine of this cluster; none for `local`."""
    if engine == "local":
        return []
    keys = {"flink": flink.runner_keys, "spark": spark.runner_keys}[engine](settings, run_folder(home), home)
    said = [f"runner.{name}={json.dumps(value)}" for name, value in keys.items()]
    said.append(f'runner.pools=["127.0.0.1:{settings.pool}"]')
    return ["--runner", engine, *(word for one in said for word in ("--set", one))]


def tell(settings: Settings, engines: set[str]) -> None:
    """Say where an engine's page is, and how a run gets there."""
    pages = {"flink": settings.flink_page, "spark": settings.spark_page}
    for engine in sorted(engines & set(DRIVERS)):
        print(f"\n{engine}: jobs at http://127.0.0.1:{pages[engine]}; a run there:")
        print(f"  pipeline run {shlex.join(runner_options(engine, settings))}")


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("do", choices=("up", "down", "status"))
    parser.add_argument("--engines", default=",".join(DRIVERS), help="which to start, with commas")
    add_options(parser)
    asked = parser.parse_args(arguments)
    folder, engines = run_folder(), set(asked.engines.split(","))
    if unknown := engines - set(DRIVERS):
        parser.error(f"no engine {sorted(unknown)}; there are {', '.join(DRIVERS)}")
    if asked.do == "down":
        print("ended:", ", ".join(end_all(folder)) or "nothing ran")
        return 0
    try:
        if asked.do == "up":
            up(from_options(asked), engines)
        settings = read(folder)
    except (NotUp, OSError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    running = [one for one in noted_in(folder) if one.alive]
    for one in running:
        print(f"{one.name:20} process {one.pid:<8} {one.log}")
    tell(settings, {one.name.partition("-")[0] for one in running})
    return 0


if __name__ == "__main__":
    sys.exit(main())
