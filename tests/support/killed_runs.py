"""Run a stage in a process of its own, without workers, that is killed between a file and its record."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from manifests.journal import Journal
from tests.support.paths import ROOT


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
