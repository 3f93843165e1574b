"""Kill workers that caption, at random points: the same bytes, and at most a batch of work done twice for each kill."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from pipeline.execution.backends import RunnerOptions
from pipeline.execution.progress import Progress
from pipeline.execution.supervisor import Supervisor
from tests.support.captions import asked_for, captioned_run
from tests.support.paths import ROOT
from tests.support.waiting import descendants, parents, wait_for

pytestmark = pytest.mark.slow
ROWS = 15


def batch_of(size):
    """Return how many captions a kill may cost: those in hand, a batch, and an eighth of one that is not kept yet."""
    return size + -(-size // 8)


@pytest.fixture(scope="module", autouse=True)
def tests_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Return the tables of a run that nothing disturbed."""
    return captioned(captioned_run(tmp_path_factory.mktemp("calm"), ROWS, 8), 1)[0]


def tables(step):
    there = (step.root / "captions/attempts").glob(
        "[!.]*.parquet"
    )  # what a killed command left half-written goes at a start
    return {path.name: path.read_bytes() for path in there}


def captioned(step, workers, kills=0, seed=0):
    """Return (tables, deaths) of a step that was done with so many kills of workers that had begun to describe."""
    units = [unit for unit in step.units() if step.journal.done(unit.name, unit.key) is None]
    supervisor = Supervisor(step, RunnerOptions(workers=workers), Progress("caption", len(units), noun=step.noun))
    ended, draw = threading.Event(), random.Random(seed)

    def kill():
        for _ in range(kills):
            before = len(asked_for(step.root)) + draw.randrange(1, 8)
            while len(asked_for(step.root)) < before and not ended.wait(0.005):
                """Wait for it to go on."""
            time.sleep(draw.random() * 0.06)
            living = [one.process for one in list(supervisor.workers.values()) if one.process.poll() is None]
            if living:
                os.kill(draw.choice(living).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        supervisor.run(units)
    finally:
        ended.set()
        killer.join()
    return tables(step), supervisor.deaths


@pytest.mark.parametrize(
    ("workers", "size", "kind"),
    [(1, 1, "static"), (1, 8, "static"), (2, 4, "static"), (1, 6, "refilled"), (2, 3, "refilled")],
)
def test_a_kill_costs_a_batch_and_changes_no_byte(calm, tmp_path, capsys, workers, size, kind):
    step = captioned_run(tmp_path / "run", ROWS, size, kind)
    made, deaths = captioned(step, workers, kills=3, seed=size)
    assert made == calm
    asked = Counter(asked_for(step.root))
    twice = asked.total() - len(asked)
    with capsys.disabled():
        print(f"\n{workers} workers, {kind} batches of {size}: {deaths} kills, {twice} of {6 * ROWS} asked twice")
    assert len(asked) == 6 * ROWS
    assert deaths >= 2
    assert twice <= deaths * batch_of(size)
    assert not list((step.root / ".partial").rglob("*.parquet"))


def test_a_killed_run_goes_on_where_it_was(calm, tmp_path):
    """Its workers end with it; the next one takes what they had kept."""
    code = (
        "from pathlib import Path; from tests.support.captions import Captioned, recipe_of;"
        "from tests.support.supervised import run;"
        f"run(Captioned(recipe_of(4), Path({str(tmp_path / 'run')!r})), workers=2)"
    )
    step = captioned_run(tmp_path / "run", ROWS, 4)
    for least in (10, 40):
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        try:
            wait_for(lambda least=least: len(asked_for(step.root)) >= least)
            family = descendants(parent.pid)
        finally:
            parent.kill()
            parent.wait()
        wait_for(lambda family=family: not family & set(parents()))
    made, _ = captioned(step, 2)
    assert made == calm
    asked = Counter(asked_for(step.root))
    assert asked.total() - len(asked) <= 2 * 2 * batch_of(4)
