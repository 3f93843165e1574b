"""A kill while a plan takes the place of another: verify finds nothing wrong, remove and repair do their work, and the
next run goes on from the plan that is whole."""

import os
import shutil

import pytest
from typer.testing import CliRunner

from manifests.plans import BEFORE, FRESH, plan_folder
from pipeline.cli import app
from tests.support.keep_runs import without_beam
from tests.support.removals import URL, contents, digests, remove, rerun, whole

STEPS = ("fetch", "encode", "pack")


def _half_made(folder):
    fresh = folder.with_name(f"{FRESH}1-ab-{folder.name}")
    shutil.copytree(folder, fresh)
    (fresh / "plan.json").unlink()
    next(fresh.glob("*.parquet")).write_bytes(b"half")


def _out_of_place(folder):
    fresh = folder.with_name(f"{FRESH}1-ab-{folder.name}")
    shutil.copytree(folder, fresh)
    os.rename(folder, folder.with_name(f"{BEFORE}{folder.name}"))


def _in_place(folder):
    before = folder.with_name(f"{BEFORE}{folder.name}")
    shutil.copytree(folder, before)
    (before / "plan.json").unlink()  # half gone


@pytest.fixture(params=[_half_made, _out_of_place, _in_place], ids=lambda leave: leave.__name__[1:].replace("_", " "))
def killed(run, request):
    """Return a whole run in which the plans of some steps are as a kill at this point leaves them."""
    for step in STEPS:
        request.param(plan_folder(run, step))
    return run


def temporary(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob(".tmp-*"))


def test_verify_and_remove_after_the_kill(killed, removed):
    assert whole(killed) == []
    remove(killed, url=URL.format(5))
    assert (contents(killed), temporary(killed), whole(killed)) == (contents(removed), [], [])


def test_repair_and_run_after_the_kill(killed, made):
    before, table = contents(made), next((killed / "scores").glob("*.parquet"))
    table.write_bytes(b"damaged")
    with without_beam():
        assert CliRunner().invoke(app, ["repair", str(killed)]).exit_code == 0
    assert (contents(killed), temporary(killed), whole(killed)) == (before, [], [])
    done = rerun(killed)
    assert ([one.made for one in done], digests(killed)) == ([0, 0, 0], digests(made))
