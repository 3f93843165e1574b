"""Run the command line as a user does, and read what it left."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.manifest import Manifest
from tests.support.paths import ROOT


def pipeline(*args, cwd=None, **kwargs):
    command = [sys.executable, "-m", "pipeline.cli", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd or ROOT, env=environment, timeout=600, check=False, **kwargs
    )


def run(recipe, stage, *args, code=0, **kwargs):
    done = pipeline("run", "--stage", stage, "--recipe", recipe, *args, **kwargs)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def manifest(root, stage):
    return Manifest.read(root / "manifests" / f"{stage}.json")


def final(root):
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))


def digests(root):
    return [manifest(root, stage).digest for stage in ("filter", "caption", "pretokenize")]
