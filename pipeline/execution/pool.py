"""Start Beam's SDK processes where an engine asks for them: `python -m pipeline.execution.pool --port N`.

The external worker pool of Beam's protocol, to run beside each TaskManager or Spark worker, for
`--environment_type=EXTERNAL --environment_config=HOST:N`. Beam's own (worker_pool_main, 2.77) starts the `python` of
PATH, with this shell's threads and GPU, each with a pipe as standard output that nobody reads, and leaves them behind
where it is killed. Here
- SDK processes are forks of this Python, with a worker's environment, and end with the pool however that ends;
- what they print stands in worker-0.log and so on of the folder `--logs`, the last MiB of each;
- a process that is killed before it has reached its engine, which would wait for it for ever, is started again;
- a process that the engine stops is asked, then killed, and reaped; engines count their workers from 1 each, so that
  one pool for several of them tells two 1-1 apart by the connection that asked;
- a second pool on the same port is refused;
- `about(address)` says who listens there.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam
import grpc
from apache_beam.portability.api import beam_fn_api_pb2 as api
from apache_beam.portability.api import beam_fn_api_pb2_grpc as api_grpc

from pipeline.execution.environment import worker_environment
from pipeline.execution.forkserver import ForkServer, WorkerProcess

PROCESS = (sys.executable, "-m", "pipeline.execution.pool_process")
MOST_LOG = 1 << 20
"""Bytes of a log above which its first half goes."""
START_S = 120.0
"""Seconds that the first process has to import Beam and start; an engine waits about as long."""
MOST_STARTS = 3
"""Times that a process is started which is killed before it reaches its engine."""
LOOK_S = 1.0
ABOUT = "/tessera.Pool/About"
"""A method beside Beam's own two: says which Python, Beam and package a pool has."""


@dataclass(frozen=True)
class Asked:
    """A process that an engine asked for. `number`: the lowest that no other has; it says whose log it is."""

    number: int
    process: WorkerProcess
    address: str
    starts: int


class Pool(api_grpc.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]  # Beam has no types
    """The SDK processes of one pool, by the engine's id. gRPC calls it from threads of its own."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.lock = threading.Lock()
        self.forks = ForkServer(PROCESS)
        self.workers: dict[tuple[str, str], Asked] = {}
        """By id and connection."""

    def StartWorker(self, request: Any, context: grpc.ServicerContext) -> Any:  # Beam's name
        """Start an SDK process; an answer with `error` where that cannot be done."""
        try:
            with self.lock:
                error = self._start((request.worker_id, context.peer()), request.control_endpoint.url)
        except OSError as fault:
            error = str(fault)
        return api.StartWorkerResponse(error=f"worker pool of process {os.getpid()}: {error}" if error else "")

    def StopWorker(self, request: Any, context: grpc.ServicerContext) -> Any:  # Beam's name
        """End the SDK process of this id that this connection asked for, else the only one of this id; of several none,
        since each ends with its engine's control channel too."""
        with self.lock:
            own = (request.worker_id, context.peer())
            same = [own] if own in self.workers else [key for key in self.workers if key[0] == request.worker_id]
            if len(same) == 1:
                self.workers.pop(same[0]).process.stop()
        return api.StopWorkerResponse()

    def tend(self) -> None:
        """Forget processes that have ended; start those again that were killed before they had reached their engine."""
        with self.lock:
            for worker, one in list(self.workers.items()):
                if (code := one.process.poll()) is None:
                    continue
                del self.workers[worker]
                if code < 0 and one.starts < MOST_STARTS and not self._reached(one.number).exists():
                    self._start(worker, one.address, one.starts + 1)

    def _reached(self, number: int) -> Path:
        """Return the file that a process leaves when it has reached its engine."""
        return self.logs / f"worker-{number}.reached"

    def _start(self, worker: tuple[str, str], address: str, starts: int = 1) -> str:
        """Start a process and return an empty text, or why there is none."""
        if not self.forks.alive:
            self.forks.close()
            self.forks = ForkServer(PROCESS)
        taken = {one.number for one in self.workers.values()}
        number = min(set(range(len(taken) + 1)) - taken)
        reached = self._reached(number)
        reached.unlink(missing_ok=True)
        asked = {"WORKER_ID": worker[0], "CONTROL_ADDRESS": address, "REACHED": str(reached)}
        environment = worker_environment(None) | asked
        process = self.forks.start(Path(), self.logs / f"worker-{number}.log", environment)
        end = time.monotonic() + START_S
        while process.pid is None and process.poll() is None and time.monotonic() < end:
            self.forks.listen(1.0)
        if process.pid is None:
            self.forks.close()
            return f"no SDK process within {START_S:.0f} s: {self.forks.error or 'its Python says nothing'}"
        self.workers[worker] = Asked(number, process, address, starts)
        return ""

    def shorten_logs(self) -> None:
        """Drop the first half of each log that is too long; processes go on writing at its end."""
        for path in self.logs.glob("worker-*.log"):
            if path.stat().st_size > MOST_LOG:
                last = path.read_bytes()[-MOST_LOG // 2 :]
                os.truncate(path, 0)
                with path.open("ab") as log:
                    log.write(last)

    def close(self) -> None:
        """End all processes."""
        with self.lock:
            self.forks.close()


def versions() -> dict[str, str]:
    """Return what must be the same on both sides of a run."""
    try:
        package = importlib.metadata.version("tessera-t2i")
    except importlib.metadata.PackageNotFoundError:
        package = "not installed"
    return {"package": package, "beam": apache_beam.__version__, "python": sys.version.split()[0]}


def about(address: str, seconds: float = 5.0) -> dict[str, str] | None:
    """Return the versions, the executable, the process and the log folder of the pool at HOST:PORT; None where another
    program serves gRPC there, such as Beam's own pool. Raises ConnectionError where nothing answers in time."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer: bytes = channel.unary_unary(ABOUT)(b"", timeout=seconds, wait_for_ready=False)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise ConnectionError(f"no worker pool answers at {address}: {error.details()}") from error
    return dict(json.loads(answer))


def serve(host: str, port: int, pool: Pool) -> tuple[grpc.Server, int]:
    """Serve the pool and return (server, port): a free one for port 0. Raises OSError where the port is taken."""
    from concurrent.futures import ThreadPoolExecutor

    options = [("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)]
    server = grpc.server(ThreadPoolExecutor(32), options=options)
    api_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    said = {**versions(), "executable": sys.executable, "process": str(os.getpid()), "logs": str(pool.logs)}
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: json.dumps(said).encode())
    service, _, method = ABOUT.strip("/").partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: answer}),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"cannot listen on {host}:{port}: another program has this port, or no such address is here")
    server.start()
    return server, bound


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.execution.pool", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: whoever reaches it starts processes")
    parser.add_argument("--logs", type=Path, help="folder for what SDK processes print (one of the temporary folder)")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    logs = (asked.logs or Path(tempfile.mkdtemp(prefix="tessera-pool-"))).absolute()
    logs.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    pool = Pool(logs)
    try:
        server, port = serve(asked.host, asked.port, pool)
    except OSError as error:
        pool.close()
        print(f"worker pool: {error}", file=sys.stderr)
        return 2
    print(f"worker pool at {asked.host}:{port}, process {os.getpid()}, logs in {logs}", flush=True)
    while not ended.wait(LOOK_S):
        pool.tend()
        pool.shorten_logs()
    server.stop(0)
    pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
