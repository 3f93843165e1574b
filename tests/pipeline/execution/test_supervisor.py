"""The supervised local runner: a death is charged to the row in hand, and the same bytes come out whatever dies."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.execution.backends import RUNNERS
from pipeline.execution.environment import worker_environment
from pipeline.execution.errors import RunFailed
from pipeline.execution.progress import Progress, clock
from pipeline.recipes.schema import RecipeError
from tests.support import steps
from tests.support.paths import ROOT
from tests.support.supervised import RECIPE, run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def tests_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def squares(root):
    return {
        n: square
        for path in sorted((root / "out").glob("*.parquet"))
        for n, square in zip(*pq.read_table(path).to_pydict().values(), strict=True)
    }


def digest(root):
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted((root / "out").glob("*.parquet")))).hexdigest()


def test_one_and_two_workers_make_the_same_bytes(tmp_path):
    run(steps.Counting(RECIPE, tmp_path / "1"), workers=1)
    run(steps.Counting(RECIPE, tmp_path / "2"), workers=2)
    assert squares(tmp_path / "1") == {n: n * n for n in range(60)}
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


def test_a_row_that_kills_three_workers_is_dropped_alone(tmp_path):
    supervisor = run(steps.Deadly(RECIPE, tmp_path), workers=2)
    assert squares(tmp_path) == {n: n * n for n in range(60) if n != 23}
    assert supervisor.deaths == 3
    assert supervisor.crash_counts[(23).to_bytes(16, "big").hex()] == 3
    assert (
        max(count for uid, count in supervisor.crash_counts.items() if int(uid, 16) != 23) == 1
    )  # its batch-mates, once
    record = steps.Deadly(RECIPE, tmp_path).journal.get("00002")
    assert record.dropped == {"worker_died": 1}


def test_a_death_that_does_not_repeat_costs_no_row(tmp_path):
    run(steps.Counting(RECIPE, tmp_path / "calm"), workers=1)
    supervisor = run(steps.DeadlyOnce(RECIPE, tmp_path / "shaken"), workers=1)
    assert supervisor.deaths == 1
    assert digest(tmp_path / "calm") == digest(tmp_path / "shaken")


def test_an_exception_is_charged_like_a_death(tmp_path, capsys):
    run(steps.Raising(RECIPE, tmp_path), workers=1)
    assert set(range(60)) - set(squares(tmp_path)) == {23}
    assert "a decoder fell over" in capsys.readouterr().out


def test_a_silent_worker_counts_as_dead(tmp_path):
    run(steps.Hanging(RECIPE, tmp_path), workers=1, stall_s=8.0)
    assert set(range(60)) - set(squares(tmp_path)) == {23}


def test_deaths_without_a_row_in_hand_end_the_run(tmp_path):
    with pytest.raises(RunFailed, match="3 workers died"):
        run(steps.Hopeless(RECIPE, tmp_path), workers=1)


def test_wrong_weights_are_a_fault_of_the_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"got \(1, 2\), wanted \(3, 4\)"):
        run(steps.WrongWeights(RECIPE, tmp_path), workers=1)


def test_a_full_disk_stops_the_run_and_it_goes_on_later(tmp_path):
    with pytest.raises(RunFailed, match="no room left"):
        run(steps.FullDisk(RECIPE, tmp_path), workers=1)
    done = sorted(path.stem for path in steps.Counting(RECIPE, tmp_path).journal.folder.glob("*.json"))
    assert "00002" not in done
    run(steps.Counting(RECIPE, tmp_path), workers=1)
    assert squares(tmp_path) == {n: n * n for n in range(60)}


def test_workers_end_with_their_supervisor(tmp_path):
    code = (
        "from pathlib import Path; from tests.support import steps; from tests.support.supervised import RECIPE, run;"
        f"run(steps.Hanging(RECIPE, Path({str(tmp_path)!r})), workers=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_for(lambda: len(descendants(parent.pid)) == 2)  # the fork server and a worker
        family = descendants(parent.pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not family & running())


def test_workers_end_with_their_nursery_and_the_run_goes_on(tmp_path):
    """A kill of the process that forks workers costs no row: a new one is started."""
    run(steps.Counting(RECIPE, tmp_path / "calm"), workers=1)
    step = steps.KillsForkServer(RECIPE, tmp_path / "shaken")
    supervisor = run(step, workers=1)
    assert supervisor.deaths == 1
    assert digest(tmp_path / "calm") == digest(tmp_path / "shaken")


def test_workers_know_their_folder_environment_and_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_TEST", "seen")
    monkeypatch.chdir(tmp_path)
    run(steps.Telling(RECIPE, Path("here")), workers=1)
    log = (tmp_path / "here" / "logs" / "workers" / "counting-0.log").read_text()
    assert f"seen {tmp_path} {tmp_path / 'here' / 'logs' / 'workers' / 'counting-0.tmp'}" in log
    assert "imported: apache_beam\n" in log  # before the fork, or Beam would have brought pandas: 4 s in each worker


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def running():
    """Return the numbers of all processes that are not zombies."""
    return set(parents())


def parents():
    """Return process -> its parent."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(folder.name)] = int(parent)
    return found


def descendants(pid):
    """Return the processes below this one."""
    known, found = parents(), {pid}
    for _ in range(3):
        found |= {child for child, parent in known.items() if parent in found}
    return found - {pid}


def test_numbers_do_not_depend_on_the_machines_threads():
    environment = worker_environment(0)
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"1"}
    assert RUNNERS[0] == "local"


def test_clock_and_progress_line():
    assert [clock(s) for s in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]
    progress = Progress("score", units=4, skipped=1)
    assert "score    1/4 shards (1 were done)" in progress.line()
