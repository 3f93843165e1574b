"""Two processes of torch.distributed on this machine: what torchrun would tell them, and a way to run a function in
both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def told(rank: int, port: int, world: int = 2) -> dict[str, str]:
    """Return the environment of one process."""
    return {
        **{"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run_two(module: str, folder: Path) -> None:
    """Run `python -m MODULE FOLDER` twice, as ranks 0 and 1 of one world, and wait for both."""
    port = free_port()
    processes = [
        subprocess.Popen([sys.executable, "-m", module, str(folder)], cwd=ROOT, env={**os.environ, **told(rank, port)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
