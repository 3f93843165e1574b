"""Where shards of the plan begin follows from counts; what is planned already is not written again."""

import contextlib
import os
import random
import signal
import time
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.layout import SCRATCH
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.shuffle import here
from pipeline.execution.supervisor import Supervisor, do_within
from pipeline.steps.fetch.plan import PLANNED, Cut, FetchPlan, as_before, cut
from tests.support.selected import add_files, leave_gap, put_selected, recipe_of


@pytest.fixture
def root(tmp_path):
    add_files(tmp_path, "a", "b")
    put_selected(tmp_path, "a", (3, None), (9, "size"), (1, None), (2, None))
    put_selected(tmp_path, "b", (4, None), (1, None), (5, None))
    return tmp_path


def make(root, do=here, shard_rows=2):
    FetchPlan(recipe_of(shard_rows), root).make(do)


def planned(root):
    tables = sorted((root / "manifests/plan/fetch").glob("*.parquet"))
    return {path.stem: [row[0] for row in pq.read_table(path)["uid"].to_pylist()] for path in tables}


def bytes_of(root):
    folders = [root / "manifests/plan/fetch", root / "ledger/first"]
    return {path.name: path.read_bytes() for folder in folders for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("counts", "shards"),
    [
        ([], []),
        ([(0, 0)], []),
        ([(2, 0)], [Cut(0, ((0, 0, 2),))]),
        ([(5, 0)], [Cut(0, ((0, 0, 2),)), Cut(2, ((0, 2, 4),)), Cut(4, ((0, 4, 5),))]),
        ([(1, 0), (0, 3), (2, 0)], [Cut(0, ((0, 0, 1), (2, 0, 1))), Cut(1 + 1, ((2, 1, 2),))]),
        ([(1, 0), (2, 1)], [Cut(0, ((0, 0, 1),)), Cut(1, ((1, 0, 2),))]),  # another batch begins a shard
        ([(2, 0), (1, 1)], [Cut(0, ((0, 0, 2),)), Cut(2, ((1, 0, 1),))]),
    ],
)
def test_shards_are_cut_by_counts(counts, shards):
    assert cut(counts, 2) == shards


def test_pieces_end_at_every_shard_of_the_whole_input():
    """Rows 5 … 9 of all, three a shard: 5 | 6 7 8 | 9; row 7 is gone."""
    table = pa.table({name: pa.nulls(5, pa.string()) for name in PLANNED})
    table = table.set_column(0, "uid", pa.array([bytes([n]) * 16 for n in range(5)], pa.binary(16)))
    table = table.append_column("gone", pa.array([False, False, True, False, False]))
    assert [len(chunk) for chunk in as_before(table, 5, 3)["uid"].chunks] == [1, 2, 1]


def test_survivors_stand_in_input_order(root):
    make(root)
    assert planned(root) == {"00000": [3, 1], "00001": [2, 4], "00002": [5]}
    assert not (root / SCRATCH).exists()


def test_an_unchanged_plan_is_not_written_again(root):
    did = []

    def do(step, units):
        did.append(step.name)
        here(step, units)

    make(root, do)
    before = {path: path.stat().st_mtime_ns for path in (root / "manifests/plan/fetch").iterdir()}
    make(root, do)
    assert did == ["first_split", "first_reduce", "first", "fetch_plan"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    put_selected(root, "b", (4, None), (1, None), (6, None))
    make(root, do)
    assert did[4:] == did[:4]
    assert planned(root) == {"00000": [3, 1], "00001": [2, 4], "00002": [6]}


def test_what_a_kill_left_of_a_plan_that_stands_is_swept(root):
    make(root)
    for name in ("first", "fetch_plan"):
        (root / SCRATCH / name).mkdir(parents=True)
    make(root)
    assert not (root / SCRATCH).exists()


def test_ledger_first_is_made_again_where_the_plan_stands(root):
    """A run that was stopped had begun to write it for other rules: the plan stood, and `verify` called it damaged."""
    make(root)
    before = bytes_of(root)
    pq.write_table(pa.table({"row": pa.array([], pa.uint32())}), root / "ledger/first/a.parquet")
    make(root)
    assert bytes_of(root) == before


def test_a_table_that_is_lost_is_planned_again(root):
    make(root)
    before = bytes_of(root)
    (root / "manifests/plan/fetch/00001.parquet").unlink()
    make(root)
    assert bytes_of(root) == before
    (root / "manifests/plan/fetch/plan.json").write_text("{")
    make(root)
    assert bytes_of(root) == before


def test_another_number_of_rows_a_shard_leaves_no_table_of_before(root):
    make(root)
    make(root, shard_rows=4)
    assert planned(root) == {"00000": [3, 1, 2, 4], "00001": [5]}


def test_gaps_count_as_rows(root):
    leave_gap(root, "a", 2, 1)
    put_selected(root, "a", (3, None), (9, "size"), (1, "removed"), (2, None))
    put_selected(root, "b", (4, None), (1, "removed"), (5, None))
    make(root)
    assert planned(root) == {"00000": [3], "00001": [2, 4], "00002": [5]}


def put_random(root, draw):
    """Put twelve shards of up to eight rows, a third of them dropped; every four are a batch of files."""
    reasons = [None, None, "size"]
    shards = [[(draw.randrange(40), draw.choice(reasons)) for _ in range(draw.randrange(9))] for _ in range(12)]
    for number, rows in enumerate(shards):
        add_files(root, *(f"{n:05d}" for n in range((number // 4 + 1) * 4)))
        put_selected(root, f"{number:05d}", *rows)
    return shards


@pytest.mark.slow
def test_workers_of_which_one_is_killed_in_each_step_give_the_bytes_of_the_driver(tmp_path, monkeypatch):
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
        put_random(tmp_path / name, random.Random(5))
    make(tmp_path / "calm", shard_rows=3)
    monkeypatch.setattr("pipeline.execution.shuffle.SLICE_BYTES", 200)
    monkeypatch.setattr("pipeline.execution.shuffle.Derived.is_small", lambda step, pending: False)
    killed, start = [], Supervisor._start

    def kill_first(supervisor, number):
        worker = start(supervisor, number)
        if supervisor.step.name not in killed:
            killed.append(supervisor.step.name)
            while worker.process.pid is None:  # the fork server has not forked it yet
                time.sleep(0.001)
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(worker.process.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(Supervisor, "_start", kill_first)
    make(tmp_path / "killed", partial(do_within, options=RunnerOptions(workers=2)), shard_rows=3)
    assert killed == ["first_split", "first_reduce", "first", "fetch_plan"]
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "calm")


class Killed(Exception):
    """What stands for a kill."""


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_and_other_parts_give_the_same_bytes(tmp_path, monkeypatch, seed):
    """Kills between any two units, another number of parts after each."""
    draw = random.Random(seed)
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
        shards = put_random(tmp_path / name, random.Random(seed))
    make(tmp_path / "calm", shard_rows=3)

    def do(step, units):
        for unit in units:
            if draw.random() < 0.1:
                raise Killed
            here(step, [unit])

    ended = False
    while not ended:
        monkeypatch.setattr("pipeline.execution.shuffle.SLICE_BYTES", draw.choice([24, 200, 10**6]))
        try:
            make(tmp_path / "killed", do, shard_rows=3)
            ended = True
        except Killed:
            pass
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "calm")
    alive = {}
    for number, rows in enumerate(shards):
        for n, reason in rows:
            if reason is None:
                alive.setdefault(n, number // 4)
    cuts = [[n for n, batch in alive.items() if batch == number] for number in range(3)]
    expected = [own[start : start + 3] for own in cuts for start in range(0, len(own), 3)]
    assert list(planned(tmp_path / "calm").values()) == expected
