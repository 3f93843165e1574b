"""Run the command line as a user does, or within the test's own process, and read what it left."""

import contextlib
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.manifest import Manifest
from pipeline.cli import app
from tests.support.keep_runs import without_beam
from tests.support.paths import ROOT


def command(*args):
    """Return the words that start the command line in a process of its own."""
    return [sys.executable, "-m", "pipeline.cli", *map(str, args)]


def pipeline(*args, cwd=None, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env=environment,
        timeout=600,
        check=False,
        **kwargs,
    )


def run(recipe, stage, *args, code=0, **kwargs):
    done = pipeline("run", "--stage", stage, "--recipe", recipe, *args, **kwargs)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def pipeline_here(*args):
    """Run the command line in this process: units are done here, no worker is started."""
    with without_beam(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.execution.forkserver.forkserver", contextlib.nullcontext)
        done = CliRunner().invoke(app, [*map(str, args)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def pipeline_with_workers(*args):
    """Run the command line in this process, with workers of this process's fork server, which tests share: Beam is
    imported once for all of them."""
    done = CliRunner().invoke(app, [*map(str, args)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def run_with_workers(recipe, stage, *args, code=0):
    """Run a stage with real workers, but without an interpreter of its own for the command line."""
    done = pipeline_with_workers("run", "--stage", stage, "--recipe", recipe, *args)
    assert done.exit_code == code, done.output
    return done


def run_here(recipe, stage, *args, code=0):
    """Run a stage in this process: what `run` does, but for its two interpreters and the start of workers."""
    done = pipeline_here("run", "--stage", stage, "--recipe", recipe, *args)
    assert done.exit_code == code, done.output
    return done


def manifest(root, stage):
    return Manifest.read(root / "manifests" / f"{stage}.json")


def final(root):
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))


def digests(root):
    return [manifest(root, stage).digest for stage in ("filter", "caption", "pretokenize")]
