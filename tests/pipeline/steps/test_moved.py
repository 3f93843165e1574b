"""Encoded rows reach their packed shards through slices: each table is read once, and shards have the bytes that they
have where they look for their rows themselves."""

import contextlib
import io
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord, records_of
from manifests.tables import ENCODED, PACKED
from manifests.uid import uid_hash
from pipeline.execution.in_flight import InFlight
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.shuffle import here
from pipeline.execution.step import Unit
from pipeline.steps import moved
from pipeline.steps.moved import INTO, Ends, MovedCodes, MovedRows, bring, keys_of
from pipeline.steps.pack import Pack, PackWorker
from pipeline.steps.sharding import runs
from tokenize_shards.samples import Tokenizer

TOKENIZER = Tokenizer("VQ-demo", "ab" * 32, 65_536, 16, stand_in=True)
TABLES = 8
ROWS = 20


def uid(number):
    return np.uint64(number).astype(">u8").tobytes() * 2


@pytest.mark.parametrize(
    ("draw", "number", "part"),
    [
        (9, 0, -1),  # before the first shard's first sample
        (10, 1, 0),
        (15, 9, 0),
        (20, 5, 0),  # its last one
        (20, 6, 2),  # a greater uid of the same draw begins the next
        (20, 8, 2),
        (30, 1, 2),
        (31, 0, -1),  # between two shards: of one that is packed already
        (40, 3, 3),
        (40, 4, -1),
        (41, 0, -1),
    ],
)
def test_parts_by_hand(draw, number, part):
    rows = [("a-0", "a", 10, 20, uid(5)), ("a-1", "a", None, None, None), ("a-2", "a", 20, 30, uid(9))]
    rows += [("a-3", "a", 40, 40, uid(3)), ("b-0", "b", 0, 99, uid(0))]
    names = ("shard", "tier", "first", "last", "last_uid")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=moved.ENDS)
    uids = pa.array([uid(number)], pa.binary(16))
    assert Ends.of(table, "a").parts_of(np.array([draw], np.uint64), uids).tolist() == [part]
    assert Ends.of(table, "b").parts_of(np.array([draw], np.uint64), uids).tolist() == [4]
    assert Ends.of(table, "c").parts_of(np.array([draw], np.uint64), uids).tolist() == [-1]


def test_tables_move_in_runs_of_some_bytes():
    records = [
        ShardRecord(str(n), "k", (FileRecord(str(n), "", size),), 1, 1) for n, size in enumerate([4, 5, 2, 20, 1, 9])
    ]
    assert [[one.shard for one in some] for some in runs(records, moved._bytes, 10)] == [
        ["0", "1"],
        ["2"],
        ["3"],
        ["4", "5"],
    ]
    assert list(runs([], moved._bytes, 10)) == []


def forged(root, codes=1, tables=TABLES, shards=12):
    """Write encoded tables of ROWS rows, one in ten with a reason, and the plan of packed shards over the
    others; return the step and its units."""
    rng, every = np.random.default_rng(3), []
    for table in range(tables):
        drawn = sorted((uid_hash(uid(n), 0), uid(n)) for n in range(table * ROWS, (table + 1) * ROWS))
        rows = [
            {"uid": one, "draw": draw, "sha256": one * 2, "size": 512, "n_crops": 1, "crops": [{"place": "center"}]}
            | {"codes": rng.integers(0, 65_536, codes).tolist(), "reason": "corrupt" if draw % 10 == 0 else None}
            for draw, one in drawn
        ]
        path = root / "codes" / "encoded" / f"t-{table:05d}.parquet"
        write_table(path, pa.Table.from_pylist(rows, schema=ENCODED))
        files = (FileRecord.of(root, path),)
        Journal(root, "encode").record(ShardRecord(path.stem, "key", files, ROWS, ROWS))
        every += [{"uid": row["uid"], "encoded": path.stem} for row in rows if row["reason"] is None]
    every.sort(key=lambda row: (uid_hash(row["uid"], 0), row["uid"]))
    units = []
    for number, part in enumerate(np.array_split(np.arange(len(every)), shards)):
        path = root / "manifests" / "plan" / "pack" / f"t-{number:05d}.parquet"
        write_table(path, pa.Table.from_pylist([every[n] for n in part], schema=PACKED))
        reads = {"plan": path.relative_to(root).as_posix(), "tier": "t", "number": f"{number:05d}"}
        units.append(Unit(path.stem, reads, "content", f"key {number}"))
    recipe = SimpleNamespace(pretokenize=SimpleNamespace(seed=0, t5="online"))
    return Pack(recipe, root), units


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(Pack, "tokenizer", lambda self, tier, encoded: TOKENIZER)


class Counting(io.FileIO):
    """A file that says how many bytes are read of it."""

    read_of: dict[str, int]

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.read_of[self.name] = self.read_of.get(self.name, 0) + count
        return count

    def read(self, size=-1):
        data = super().read(size)
        self.read_of[self.name] = self.read_of.get(self.name, 0) + len(data)
        return data


def test_packing_50_tables_into_50_shards_reads_each_encoded_byte_at_most_twice(tmp_path, monkeypatch, fast):
    step, units = forged(tmp_path, codes=256, tables=50, shards=50)
    opened, Counting.read_of = [], {}

    def counting(path, **other):
        if "encoded" not in str(path):
            return real(path, **other)
        file = stack.enter_context(Counting(str(path)))
        opened.append(path.name)
        return real(pa.PythonFile(file, "r"), **other)

    real = pq.ParquetFile
    monkeypatch.setattr("manifests.files.pq.ParquetFile", counting)
    with contextlib.ExitStack() as stack:
        step.bring(units, here)
        worker = PackWorker(step, "parent")
        records = [worker.run(unit, InFlight()) for unit in units]
    assert sorted(opened) == [f"t-{n:05d}.parquet" for n in range(50)]
    sizes = {str(path): path.stat().st_size for path in (tmp_path / "codes" / "encoded").iterdir()}
    assert sizes.keys() == Counting.read_of.keys()
    assert all(size // 2 < Counting.read_of[path] <= 2 * size for path, size in sizes.items())
    packed = sum(record.rows_out for record in records)
    assert packed == sum(pq.read_metadata(tmp_path / unit.reads["plan"]).num_rows for unit in units)
    assert 0.8 * 50 * ROWS < packed < 50 * ROWS
    monkeypatch.setattr("manifests.files.pq.ParquetFile", real)
    step.settle([])
    alone = PackWorker(step, "parent")
    assert not (tmp_path / ".shuffle").exists()
    assert [alone.run(unit, InFlight()) for unit in units[::7]] == records[::7]


def test_a_few_shards_look_for_their_rows_themselves(tmp_path):
    step, units = forged(tmp_path)
    step.bring(units[:2], here)
    assert not (tmp_path / ".shuffle").exists()
    assert MovedRows.of(tmp_path).of_unit(units[0]) is None


def test_what_was_moved_before_a_kill_stays_and_what_is_half_moved_is_not_used(tmp_path):
    step, units = forged(tmp_path)
    leg = MovedCodes(step.recipe, tmp_path)
    done = []

    def killed(leg, pending):
        raise KeyboardInterrupt

    def counting(leg, pending):
        done.append([unit.name for unit in pending])
        here(leg, pending)

    with pytest.raises(KeyboardInterrupt):
        bring(leg, units[3:9], killed)
    assert list(keys_of(leg.folder)) == [unit.name for unit in units[3:9]]
    assert MovedRows.of(tmp_path).of_unit(units[3]) is None
    for pending in (units[3:9], units[5:9], units[5:7]):  # fewer are left each time
        bring(leg, pending, counting)
    assert done == [["t-00000"]]
    found = MovedRows.of(tmp_path)
    order = pq.read_table(tmp_path / units[5].reads["plan"])["uid"].to_pylist()
    assert set(found.of_unit(units[5])["uid"].to_pylist()) == set(order)
    assert found.of_unit(units[9]) is None
    assert found.of_unit(Unit(units[5].name, units[5].reads, "content", "another key")) is None
    bring(MovedCodes(step.recipe, tmp_path), units[:4], counting)  # others: what was moved is of no use
    assert done == [["t-00000"]] * 2
    assert MovedRows.of(tmp_path).of_unit(units[5]) is None


def test_each_table_of_another_size_or_place_gives_the_same_rows(tmp_path, monkeypatch):
    step, units = forged(tmp_path)
    monkeypatch.setattr(moved, "UNIT_BYTES", 1)
    monkeypatch.setattr(moved, "MOST_UNITS", 1 << 40)
    step.bring(units, here)
    folder = tmp_path / ".shuffle" / INTO
    assert len(list((folder / "moved_codes").glob("*.slices"))) == TABLES == len(records_of(folder, "moved_codes"))
    found = MovedRows.of(tmp_path)
    rows = [set(found.of_unit(unit)["uid"].to_pylist()) for unit in units]
    assert rows == [set(pq.read_table(tmp_path / unit.reads["plan"])["uid"].to_pylist()) for unit in units]


def test_shards_of_a_whole_run_have_the_same_bytes(made, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(made, run)
    monkeypatch.setattr(moved, "FEW_SHARDS", 0)
    step = Pack(recipe_of_run(run), run)
    units = step.units()
    shutil.rmtree(run / "codes" / "pretrain")
    step.bring(units, here)
    worker = step.open()
    assert all(worker.moved.of_unit(unit) is not None for unit in units)
    for unit in units:
        assert worker.run(unit, InFlight()) == step.journal.get(unit.name)
    assert len(units) == 4
