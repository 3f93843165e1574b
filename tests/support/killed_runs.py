"""Kill runs: with their workers at any moment, or one of a single process between a file and its record."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from manifests.journal import Journal
from tests.support.commands import command
from tests.support.paths import ROOT


def kill_when(ready: Callable[[], bool], *args: object) -> bool:
    """Start the command line with its workers in a process group of its own, kill them as soon as it is `ready`, and
    tell whether they were killed: at most 120 s are waited."""
    process = subprocess.Popen(
        command(*args), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    end = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(random.uniform(0.0, 0.02))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def kill_before(recipe: Path, out: Path, stage: str, records: int) -> bool:
    """Run a stage into `out`, kill it when it is about to write one record more than `records`, and tell whether it
    was killed."""
    command = [sys.executable, "-m", "tests.support.killed_runs", *map(str, (recipe, out, stage, records))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL


def main(recipe: str, out: str, stage: str, records: str) -> None:
    """Do what `kill_before` asks."""
    from pipeline.recipes.load import load_recipe
    from pipeline.stages.run import StageOptions, run_stage
    from tests.support.keep_runs import without_beam

    journals, write = Path(out) / "manifests" / "journal", Journal.record

    def record(self, made):
        if len(list(journals.glob("*/*.json"))) >= int(records):
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, made)

    Journal.record = record
    with without_beam():
        run_stage(load_recipe(recipe, [f"output.root={out!r}"]), stage, StageOptions())


if __name__ == "__main__":
    main(*sys.argv[1:])
