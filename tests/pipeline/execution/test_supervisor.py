"""The supervised local runner: a death is charged to the row in hand, and the same bytes come out whatever dies."""

import hashlib
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.journal import ShardRecord
from manifests.weights import WeightsError, WeightsFile
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.errors import RunFailed
from pipeline.execution.in_flight import InFlight, Part
from pipeline.execution.progress import Progress
from pipeline.execution.supervisor import Supervisor, do_units, preflight
from pipeline.recipes.schema import RecipeError
from tests.support import steps
from tests.support.paths import ROOT
from tests.support.supervised import RECIPE, FakeServer, run
from tests.support.waiting import descendants, parents, wait_for

slow = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def tests_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Return the folder of a run by one worker that nothing disturbed, started from the folder above it."""
    folder = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESSERA_TEST", "seen")
        patch.chdir(folder)
        run(steps.Telling(RECIPE, Path("run")), workers=1)
    return folder / "run"


class Sliced(steps.Counting):
    """A step with little to do."""

    def is_small(self, pending):
        return True


def test_a_step_with_little_to_do_starts_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.execution.supervisor.Supervisor.run", None)
    step = Sliced(RECIPE, tmp_path)
    progress = Progress(step.name, 6)
    do_units(step, step.units(), RunnerOptions(), progress)
    assert (progress.done, progress.rows) == (6, 60)
    assert squares(tmp_path) == {n: n * n for n in range(60)}


def squares(root):
    return {
        n: square
        for path in sorted((root / "out").glob("*.parquet"))
        for n, square in zip(*pq.read_table(path).to_pydict().values(), strict=True)
    }


def ignores_interrupts(pid):
    """Tell whether SIGINT does nothing to a process: it is blocked (before imports) or ignored."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return any(int(status[mask], 16) >> (signal.SIGINT - 1) & 1 for mask in ("SigBlk", "SigIgn"))


def digest(root):
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted((root / "out").glob("*.parquet")))).hexdigest()


@slow
def test_one_and_two_workers_make_the_same_bytes(calm, tmp_path):
    run(steps.Counting(RECIPE, tmp_path), workers=2)
    assert squares(tmp_path) == {n: n * n for n in range(60)}
    assert digest(tmp_path) == digest(calm)


@slow
def test_a_row_that_kills_three_workers_is_dropped_alone(tmp_path):
    supervisor = run(steps.Killed(RECIPE, tmp_path), workers=2)
    assert squares(tmp_path) == {n: n * n for n in range(60) if n != 23}
    assert supervisor.deaths == 3
    assert supervisor.crash_counts[(23).to_bytes(16, "big").hex()] == 3
    assert (
        max(count for uid, count in supervisor.crash_counts.items() if int(uid, 16) != 23) == 1
    )  # its batch-mates, once
    record = steps.Killed(RECIPE, tmp_path).journal.get("00002")
    assert record.dropped == {"worker_died": 1}


@slow
def test_a_death_that_does_not_repeat_costs_no_row(calm, tmp_path):
    supervisor = run(steps.KilledOnce(RECIPE, tmp_path), workers=1)
    assert supervisor.deaths == 1
    assert digest(tmp_path) == digest(calm)


@slow
def test_an_exception_is_charged_like_a_death(tmp_path, capsys):
    run(steps.Raising(RECIPE, tmp_path), workers=1)
    assert set(range(60)) - set(squares(tmp_path)) == {23}
    assert "a decoder fell over" in capsys.readouterr().err


@slow
def test_a_captioner_that_refuses_ends_the_run_at_once(tmp_path, capsys):
    with pytest.raises(RecipeError, match="its tokenizer has no <image>"):
        run(steps.Refusing(RECIPE, tmp_path), workers=1)
    assert "starting it again" not in capsys.readouterr().err


@slow
def test_a_worker_goes_over_the_ends_of_units_and_its_death_costs_no_other_row(calm, tmp_path):
    run(steps.Streaming(RECIPE, tmp_path / "whole"), workers=1)
    assert digest(tmp_path / "whole") == digest(calm)
    log = (tmp_path / "whole" / "logs" / "workers" / "counting-0.log").read_text()
    assert log.count("before the end of") == 5
    supervisor = run(steps.StreamingKilled(RECIPE, tmp_path / "killed"), workers=2)
    assert supervisor.deaths == 3
    assert set(range(60)) - set(squares(tmp_path / "killed")) == {23}


@slow
def test_a_worker_that_is_free_takes_what_a_slow_one_would_have_had(tmp_path):
    run(steps.Slow(RECIPE, tmp_path), workers=2)
    done = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert max(done, key=done.__getitem__) == "00000"  # the other worker did five in the meantime


def fakes_with_claims(monkeypatch, root, endings, had):
    """Return (supervisor, fork server, units); the n-th worker that is asked for claims `had[n]` units first."""
    supervisor, server, units = supervised_by_fakes(monkeypatch, root, 2, endings)
    start = server.start

    def claiming(job, log, environment):
        worker = start(job, log, environment)
        taken = supervisor.claims.taken(worker.job.runtime["lane"])
        for _ in range(had[len(server.workers) - 1]):
            next(taken)
        return worker

    server.start = claiming
    return supervisor, server, units


def test_nobody_is_started_for_units_that_living_workers_have(tmp_path, monkeypatch, capsys):
    supervisor, server, units = fakes_with_claims(monkeypatch, tmp_path, [None, -9], [6, 0])
    monkeypatch.setattr(supervisor, "_wait", lambda: None if len(supervisor.workers) == 2 else end(server, 0))
    with pytest.raises(RunFailed, match="without a record of 6 shards"):
        supervisor.run(units)
    assert len(server.workers) == 2
    assert "a worker ended by signal 9 at shard ?, no row in hand; the others go on" in capsys.readouterr().err


def test_units_of_a_dead_worker_are_taken_over_though_the_others_have_ended(tmp_path, monkeypatch):
    supervisor, server, units = fakes_with_claims(monkeypatch, tmp_path, [0, -9, 0], [2, 4, 0])
    with pytest.raises(RunFailed, match="without a record of 6 shards"):
        supervisor.run(units)
    assert [worker.job.runtime["lane"] for worker in server.workers] == [0, 1, 1]


def end(server, code):
    server.workers[0].code = code


@slow
def test_a_silent_worker_counts_as_dead(tmp_path):
    run(steps.Hanging(RECIPE, tmp_path), workers=1, stall_s=1.0)
    assert set(range(60)) - set(squares(tmp_path)) == {23}


@slow
def test_deaths_without_a_row_in_hand_end_the_run(tmp_path):
    with pytest.raises(RunFailed, match="3 workers died"):
        run(steps.Hopeless(RECIPE, tmp_path), workers=1)


@slow
def test_wrong_weights_are_a_fault_of_the_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"got \(1, 2\), wanted \(3, 4\)"):
        run(steps.WrongWeights(RECIPE, tmp_path), workers=1)


@slow
def test_a_full_disk_stops_the_run_and_it_goes_on_later(tmp_path):
    with pytest.raises(RunFailed, match="no room left"):
        run(steps.FullDisk(RECIPE, tmp_path), workers=1)
    done = sorted(path.stem for path in steps.Counting(RECIPE, tmp_path).journal.folder.glob("*.json"))
    assert "00002" not in done
    run(steps.Counting(RECIPE, tmp_path), workers=1)
    assert squares(tmp_path) == {n: n * n for n in range(60)}


@slow
def test_workers_end_with_their_supervisor(tmp_path):
    code = (
        "from pathlib import Path; from tests.support import steps; from tests.support.supervised import RECIPE, run;"
        f"run(steps.Hanging(RECIPE, Path({str(tmp_path)!r})), workers=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_for(lambda: len(descendants(parent.pid)) == 2)  # the fork server and a worker
        family = descendants(parent.pid)
        assert all(ignores_interrupts(pid) for pid in family)  # Ctrl-C reaches the whole group; the supervisor decides
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not family & set(parents()))


@slow
def test_workers_end_with_their_fork_server_and_the_run_goes_on(calm, tmp_path):
    """A kill of the process that forks workers costs no row: a new one is started."""
    supervisor = run(steps.KillsForkServer(RECIPE, tmp_path), workers=1)
    assert supervisor.deaths == 1
    assert digest(tmp_path) == digest(calm)


@slow
def test_workers_know_their_folder_environment_and_log(calm):
    log = (calm / "logs" / "workers" / "counting-0.log").read_text()
    assert f"seen {calm.parent} {calm / 'logs' / 'workers' / 'counting-0.tmp'}" in log
    assert "imported: apache_beam\n" in log  # before the fork, or Beam would have brought pandas: 4 s in each worker


def supervised_by_fakes(monkeypatch, root, workers, endings):
    """Return (supervisor, fork server, units); `endings`: how the n-th worker that is asked for ends."""
    server = FakeServer(endings)
    monkeypatch.setattr("pipeline.execution.supervisor.forkserver", lambda: server)
    step = steps.Counting(RECIPE, root)
    units = step.units()
    return Supervisor(step, RunnerOptions(workers=workers), Progress("counting", len(units))), server, units


def test_a_start_that_fails_stops_the_workers_before_it(tmp_path, monkeypatch):
    """Workers were started before the block that stops them."""
    supervisor, server, units = supervised_by_fakes(monkeypatch, tmp_path, 3, [None, None, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        supervisor.run(units)
    assert [worker.stopped for worker in server.workers] == [1, 1]
    assert list(supervisor.folder.glob("*.tmp")) == []


def test_a_worker_started_again_is_stopped_when_the_next_death_ends_the_run(tmp_path, monkeypatch):
    """Of two deaths in one pass the first was mended, the second raised, and the new worker ran on."""
    supervisor, server, units = supervised_by_fakes(monkeypatch, tmp_path, 2, [-9, (28, "disk full"), None])
    with pytest.raises(RunFailed, match="no room left to write \\(disk full\\)"):
        supervisor.run(units)
    assert supervisor.deaths == 1
    assert [worker.stopped for worker in server.workers] == [1, 1, 1]


def test_workers_claim_units_and_one_without_its_record_fails_the_run(tmp_path, monkeypatch):
    supervisor, server, units = supervised_by_fakes(monkeypatch, tmp_path, 4, [0, 0, 0, 0])
    with pytest.raises(RunFailed, match="counting: the runner ended without a record of 6 shards: 00000, 00001,"):
        supervisor.run(units)
    claims = str((tmp_path / "logs" / "workers" / "counting.claims").resolve())
    assert [(worker.job.units, worker.job.claims) for worker in server.workers] == [([], claims)] * 4
    told = [worker.job.runtime for worker in server.workers]
    assert [(runtime["lane"], runtime["lanes"]) for runtime in told] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert {runtime["budget"] for runtime in told} == {str(tmp_path / "logs" / "workers" / "counting.budget")}
    supervisor, server, units = supervised_by_fakes(monkeypatch, tmp_path, 4, [0])
    with pytest.raises(RunFailed, match="of 1 shards: 00000"):
        supervisor.run(units[:1])  # no worker is started without a unit
    assert [worker.job.runtime["budget"] for worker in server.workers] == [""]  # alone: nothing to share


def test_how_far_the_workers_are_is_read_once_a_second_and_swept_away(tmp_path, monkeypatch):
    supervisor, _, units = supervised_by_fakes(monkeypatch, tmp_path, 2, [0, 0])
    supervisor.folder.mkdir(parents=True)
    stem = supervisor.folder / "counting-1"
    for done in (3, 4):
        InFlight(stem.with_suffix(".in_flight")).tell(Part("00000", done, 9))
        supervisor._listen(2)
        assert supervisor.progress.parts == [Part("00000", 3, 9)]  # the second look comes too early
    supervisor._listen(2, now=True)
    assert supervisor.progress.parts == [Part("00000", 4, 9)]
    supervisor.budget.write_bytes(b"")
    with pytest.raises(RunFailed):
        supervisor.run(units)
    assert not [path for path in supervisor.folder.iterdir() if path.suffix in (".part", ".budget", ".claims")]


def test_a_worker_that_cannot_load_the_models_fails_the_check(tmp_path, monkeypatch):
    endings = [0, -11, (2, "weights of x: wrong shape")]
    supervisor, server, _ = supervised_by_fakes(monkeypatch, tmp_path, 1, endings)
    supervisor.check()
    with pytest.raises(RunFailed, match=r"counting: its models cannot be loaded; its log: .*counting-0\.log"):
        supervisor.check()
    with pytest.raises(RecipeError, match="weights of x: wrong shape"):
        supervisor.check()
    assert [(worker.job.units, worker.job.claims, worker.stopped) for worker in server.workers] == [([], "", 1)] * 3


def test_deaths_are_forgiven_up_to_twelve_and_one_per_10_000_rows(tmp_path, monkeypatch):
    supervisor, server, units = supervised_by_fakes(monkeypatch, tmp_path, 1, [("row", n) for n in range(20)])
    supervisor.progress.rows = 19_999
    with pytest.raises(RunFailed, match="14 workers died, the last ended by signal 9"):
        supervisor.run(units)  # 12 + 1 are forgiven
    assert len(server.workers) == 14
    assert set(supervisor.crash_counts.values()) == {1}


def test_only_weights_of_the_users_own_are_loaded_ahead(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(Supervisor, "check", lambda supervisor: checked.append(supervisor.step.name))

    def step(path, stand_in=False):
        weights = WeightsFile("w", "0" * 64, stand_in=stand_in, path=path)
        return type("Weighted", (steps.Counting,), {"name": path, "weights": lambda self: [weights]})(RECIPE, tmp_path)

    preflight(
        [
            step("/mine"),
            step("/stood/in", True),
            step(f"{sys.prefix}/lib/w"),
            step(""),
            steps.Counting(RECIPE, tmp_path),
        ]
    )
    assert checked == ["/mine"]


def test_weights_of_a_step_that_is_done_here_are_loaded_here(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.execution.supervisor.forkserver", None)
    opened = []

    class Here(steps.Counting):
        beam = False

        def weights(self):
            return [WeightsFile("w", "0" * 64, path="/mine")]

        def open(self):
            opened.append(self.name)
            raise WeightsError("they do not fit")

    with pytest.raises(WeightsError, match="they do not fit"):
        preflight([Here(RECIPE, tmp_path)])
    assert opened == ["counting"]


def test_a_step_of_one_query_is_done_here(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.execution.supervisor.forkserver", None)
    step = type("Query", (steps.Counting,), {"beam": False})(RECIPE, tmp_path)
    progress = Progress("counting", 2)
    do_units(step, step.units()[:2], RunnerOptions(), progress)
    assert squares(tmp_path) == {n: n * n for n in range(20)}
    assert (progress.done, progress.rows, progress.kept) == (2, 20, 20)
    assert sorted(path.stem for path in step.journal.folder.glob("0*.json")) == ["00000", "00001"]


def test_a_step_done_here_may_have_units_of_a_derived_step_done(tmp_path, monkeypatch):
    """Few rows are done here too, on every runner; their figures stay out of the outer step's progress."""
    monkeypatch.setattr("pipeline.execution.supervisor.forkserver", None)
    asked = []

    class Whole(steps.Counting):
        beam = False

        def do_unit(self, unit, do, grouped=False):
            inner = Sliced(self.recipe, self.root)
            do(inner, [replace(planned, reads={**planned.reads, "rows": 10}) for planned in inner.units()[1:]])
            asked.append((unit.name, grouped, sorted(squares(self.root))))
            return ShardRecord(unit.name, unit.key, (), 1, 1)

    step, progress = Whole(RECIPE, tmp_path), Progress("whole", 1)
    do_units(step, step.units()[:1], RunnerOptions(), progress)
    do_units(step, step.units()[:1], RunnerOptions("flink"), progress)
    rest = list(range(10, 60))
    assert asked == [("00000", False, rest), ("00000", True, rest)]
    assert (progress.done, progress.rows) == (2, 2)
