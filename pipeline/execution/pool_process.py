"""Fork the SDK processes of a worker pool from one process that has imported Beam: the pool's fork server.

What a fork needs to know stands in its environment: WORKER_ID and CONTROL_ADDRESS, of the engine's request, and
REACHED, a file that it makes when it has reached the engine.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.execution.forkserver_process import Server, main

STATE_CACHE = 100 << 20
"""Bytes of user state and side inputs that a process keeps, as in Beam's own containers."""


class PoolServer(Server):
    """Forks an SDK process per request of an engine."""

    def work(self, request: dict[str, Any]) -> int:
        """Serve the engine until it closes the control channel, or is gone."""
        from apache_beam.runners.worker.sdk_worker import SdkHarness

        from pipeline.execution.worker import end_orderly

        end_orderly()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        worker, address = os.environ["WORKER_ID"], os.environ["CONTROL_ADDRESS"]
        print(f"worker {worker}, process {os.getpid()}, control {address}", file=sys.stderr, flush=True)
        harness = SdkHarness(address, worker_id=worker, state_cache_size=STATE_CACHE)  # waits for the connection
        Path(os.environ["REACHED"]).touch()
        harness.run()
        return 0


if __name__ == "__main__":
    main(PoolServer)
