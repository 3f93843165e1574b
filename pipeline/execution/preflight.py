"""Look, before anything is handed to an engine, whether it can work at all; say the cause and the remedy where not.

Addresses are tried at once and none waits longer than a few seconds, so that a run that cannot be ends within ten. A
pool is given what importing Beam takes, and more. No question tells a job server's version; one that answers as a job
server is taken (2.62 takes jobs of 2.77), and what it says of a job is shown.
"""

import json
import os
import re
import secrets
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.files import write_bytes
from pipeline.execution.addresses import PORT_S, need_pools, need_spark, no_pool
from pipeline.execution.backends import EMBEDDED, HERE, Backend, Portable
from pipeline.execution.beam_flags import check_flags
from pipeline.execution.flink_rest import Cluster, FlinkRest
from pipeline.execution.java import answers
from pipeline.execution.job_service import JobService, Unreachable
from pipeline.execution.probe import itself
from pipeline.recipes.schema import RecipeError

IMPORTS = 4.0
"""A pool's Python may take so many times as long as importing Beam takes here, and PROBE_S at least: Beam's own pool
does not tell of one that ended at once for want of it."""
PROBE_S = 8.0
IMPORT_S = 120.0
"""Seconds that importing Beam may take here."""
OURS_S = 60.0
"""Seconds for a pool of ours, whose Python has Beam and this package."""
DOCKER_S = 5.0
BACK_S = 4.0
TICK_S = 0.3
MORE = "see docs/cluster.md"


def look_at_engine(backend: Backend, endpoint: str, root: Path) -> list[str]:
    """Return what is worth telling. Raises RecipeError with cause and remedy for what cannot work."""
    words = [word for flag in backend.given for word in flag.words]
    if not isinstance(backend, Portable):
        check_flags(words)
        return []
    check_flags(words, _server_options(backend, endpoint))
    if backend.rest:
        _wait_for_slots(backend)
    if backend.environment == "DOCKER" and HERE.fullmatch(endpoint):
        _need_docker()
    if backend.environment == "PROCESS" and backend.is_here:
        _need_program(backend.config.environment_config)
    notes = _look_at_pools(backend, root) if backend.environment == "EXTERNAL" else []
    return [*notes, *_untold(backend)]


def _untold(backend: Backend) -> list[str]:
    """Say where a stopped run could not end its job."""
    if backend.name != "flink" or backend.rest or backend.server() is not None:
        return []
    return [
        "note: runner.rest does not say where Flink's page is, such as localhost:8081: a run that is stopped can cancel"
        " its job at the job server alone, and those of Beam 2.62 were seen to say CANCELLED of a job that goes on"
    ]


def look_before(backend: Backend) -> None:
    """Try what needs no job server, before one is started: Java takes seconds. Raises RecipeError."""
    if not isinstance(backend, Portable):
        return
    if backend.rest:
        look_at_cluster(backend)
    if backend.server() is not None and backend.config.master.startswith("spark://"):
        need_spark(backend.config.master)
    if backend.environment == "EXTERNAL":
        _need_pools(backend)


def _server_options(backend: Backend, endpoint: str) -> set[str]:
    """Return the options that the job server takes. Raises RecipeError where none answers."""
    if endpoint == EMBEDDED:
        return set()
    if not answers(endpoint, PORT_S):
        raise RecipeError(
            f"runner.job_endpoint: nobody answers at {endpoint}; start a Beam job server there, give another HOST:PORT,"
            f" or let the run start one (runner.jar or runner.classpath): {MORE}"
        )
    service = JobService(endpoint)
    try:
        return service.option_names()
    except Unreachable as error:
        raise RecipeError(
            f"runner.job_endpoint: what answers at {endpoint} is no Beam job server ({error}); its job port is wanted,"
            " not that of artifacts or of Flink's page"
        ) from error
    finally:
        service.close()


def look_at_cluster(backend: Backend) -> Cluster:
    """Return what Flink has. Raises RecipeError where its REST does not answer."""
    try:
        return FlinkRest(backend.rest).cluster()
    except Unreachable as error:
        raise RecipeError(
            f"runner.master, runner.rest: Flink does not answer ({error}); give the address of its page, such as"
            f" localhost:8081, and start the cluster: {MORE}"
        ) from error


def _wait_for_slots(backend: Backend) -> None:
    """Return when there are the slots that were asked for; those of a job that has just been cancelled come back within
    seconds. Raises RecipeError."""
    end = time.monotonic() + BACK_S
    while (has := look_at_cluster(backend)).free < max(1, backend.config.parallelism) and time.monotonic() < end:
        if not has.taskmanagers or backend.config.parallelism > has.slots:
            break
        time.sleep(TICK_S)
    check_slots(backend, has)


def check_slots(backend: Backend, cluster: Cluster) -> None:
    """Raise RecipeError where a job of the asked width would wait for slots for ever."""
    if not cluster.taskmanagers:
        raise RecipeError(f"Flink at {backend.rest} has no TaskManager; start one or more: {MORE}")
    if not cluster.free:
        raise RecipeError(
            f"Flink at {backend.rest} has no free slot: {cluster.slots} of {cluster.slots} are taken by other jobs;"
            " wait for them or cancel them, or start another TaskManager"
        )
    if backend.config.parallelism > cluster.free:
        raise RecipeError(
            f"--workers, runner.parallelism: got {backend.config.parallelism}, and Flink at {backend.rest} has"
            f" {cluster.free} free slots of {cluster.slots} in {cluster.taskmanagers} TaskManagers; ask for that many"
            " at most, or start more"
        )


def _need_docker() -> None:
    """Raise RecipeError where the engine on this machine cannot start containers."""
    remedy = 'start Docker, or give runner.pools, or runner.environment = "loopback" or "process"'
    if shutil.which("docker") is None:
        raise RecipeError(f"runner.environment: workers are asked for in Docker, and there is no `docker`; {remedy}")
    try:
        asked = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=DOCKER_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RecipeError(f"runner.environment: Docker does not answer within {DOCKER_S:.0f} s; {remedy}") from error
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise RecipeError(f"runner.environment: Docker cannot be used ({said}); {remedy}")


def _need_program(config: str) -> None:
    try:
        program = str(json.loads(config)["command"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f'runner.environment_config: got {config!r}, wanted JSON such as {{"command": "/opt/boot"}}'
        ) from error
    if not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise RecipeError(f"runner.environment_config: {program!r} is no program on this machine")


def _look_at_pools(backend: Portable, root: Path) -> list[str]:
    """Return what could not be tried. Raises RecipeError for a pool that workers of this run cannot come from."""
    pools = _need_pools(backend)
    token, secret = root / "logs" / f"probe-{secrets.token_hex(8)}", secrets.token_hex(16)
    write_bytes(token, secret.encode())
    try:
        said = _probe(pools, token)
    finally:
        token.unlink(missing_ok=True)
    notes = [_accept(address, said.get(address), secret, root) for address in pools]
    return [note for note in notes if note]


def _need_pools(backend: Portable) -> list[str]:
    """Return the addresses of pools. Raises RecipeError where one is no address, or no pool answers at it."""
    pools = list(dict.fromkeys(backend.config.pools or [backend.pool]))
    need_pools(pools, "runner.pools" if backend.config.pools else "runner.environment_config")
    return pools


def _probe(pools: Sequence[str], token: Path) -> dict[str, dict[str, Any]]:
    """Return what each pool says, of those that say something in time."""
    command = [sys.executable, "-m", "pipeline.execution.probe"]
    asked = {
        address: subprocess.Popen(
            [*command, address, str(token)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for address in pools
    }
    try:
        return _answers_of(asked)
    finally:
        for process in asked.values():
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _answers_of(asked: dict[str, "subprocess.Popen[bytes]"]) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {}
    buffers = dict.fromkeys(asked, b"")
    end, imported = time.monotonic() + IMPORT_S, False
    with selectors.DefaultSelector() as ready:
        for address, process in asked.items():
            assert process.stdout is not None
            ready.register(process.stdout, selectors.EVENT_READ, address)
        while ready.get_map() and time.monotonic() < end:
            for key, _ in ready.select(0.1):
                data = os.read(key.fd, 65_536)
                if not data:
                    ready.unregister(key.fileobj)
                *lines, buffers[key.data] = (buffers[key.data] + data).split(b"\n")
                for line in map(json.loads, lines):
                    if "imported" in line:
                        limit = OURS_S if line["ours"] else max(PROBE_S, IMPORTS * line["imported"])
                        end = max(end if imported else 0.0, time.monotonic() + limit)
                        imported = True
                    else:
                        said[key.data] = line
    return said


def _accept(address: str, said: dict[str, Any] | None, secret: str, root: Path) -> str:
    """Return what could not be found out of a pool. Raises RecipeError for what would not work."""
    again = "start the pool with the Python of this run: python -m pipeline.execution.pool"
    if said is None:
        if HERE.fullmatch(address) is None:
            return f"note: the worker pool at {address} could not be tried from here: it does not reach this machine"
        raise RecipeError(
            f"runner.pools: the pool at {address} starts no worker in time: its `python` lacks Beam (the pool's log"
            f" says more); {again}"
        )
    if "UNIMPLEMENTED" in said.get("error", ""):  # a gRPC server of something else
        raise RecipeError(no_pool(address))
    if "error" in said:
        lacks = "No module named 'pipeline" in said["error"] or "No module named 'manifests" in said["error"]
        what = "its Python lacks this package" if lacks else _last_of(said["error"])
        raise RecipeError(f"runner.pools: the pool at {address} cannot do this run's work: {what}; {again}")
    for name, ours in itself().items():
        theirs = said["is"].get(name)
        if theirs != ours:
            got = f"{str(theirs)[:12]}, wanted {ours[:12]}"
            raise RecipeError(
                f"runner.pools: the pool at {address} has another {name}: got {got} (its Python: {said['executable']});"
                f" {again}"
            )
    if said["found"] != secret:
        raise RecipeError(
            f"output.root: workers of the pool at {address} do not see the run folder {root}: a file written there is"
            " not found; give a folder on a disk that all machines share, or a store (--out s3://bucket/run)"
        )
    return ""


def _last_of(error: str) -> str:
    """Return what an error's text ends with; one of gRPC says it in its `details`, and ends with a bracket."""
    details = re.findall(r'details = "(.+)"', error)
    return str(details[-1] if details else error.strip().splitlines()[-1])[:300]
