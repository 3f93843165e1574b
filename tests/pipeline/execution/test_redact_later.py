"""pipeline/execution/redact_later.py: what later steps left of a removed row goes, and their shards are made anew."""

import pyarrow as pa
import pytest

from manifests.files import read_table, write_bytes, write_json
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.plans import plan_folder, write_plan
from manifests.schema import schema
from manifests.store import scratch_of
from pipeline.execution.redact_later import OUTDATED, redact_later, redact_logs, redact_reports
from pipeline.execution.redaction import RemovedRows
from pipeline.execution.step import Step
from pipeline.recipes.schema import Recipe
from tests.support.records import put_table, uid

ROWS = pa.schema([*schema("uid", "reason")])
GONE = RemovedRows(frozenset([uid(1)]), frozenset(["http://x.test/1.jpg"]))


class Later(Step):
    name = "score"


@pytest.fixture
def root(anywhere):
    return anywhere


@pytest.fixture
def step(root):
    return Later(Recipe.model_validate({"tier": {"a": {"size": 64}}}), root)


def rows(*numbers):
    return [{"uid": uid(number), "reason": None} for number in numbers]


def uids(root, path):
    return read_table(root / path)["uid"].to_pylist()


def test_only_the_shard_that_holds_the_row_is_outdated(root, step):
    put_table(root, "score", "scores/0.parquet", rows(0, 1, 2), ROWS)
    other = put_table(root, "score", "scores/3.parquet", rows(3), ROWS)
    redact_later([step], GONE)
    record = step.journal.get("0")
    assert (record.key, record.rows_in, record.rows_out) == (OUTDATED, 2, 2)
    assert uids(root, "scores/0.parquet") == [uid(0), uid(2)]
    assert all(file.is_whole(root) for file in record.files)
    assert step.journal.get("3") == other


def test_plans_lose_the_row_and_note_it(root, step):
    plans = [("0", pa.Table.from_pylist(rows(0, 1), schema=ROWS))]
    ((_, path, before),) = write_plan(root, "score", plans)
    redact_later([step], GONE)
    assert uids(root, path.relative_to(root)) == [uid(0)]
    noted = (plan_folder(root, "score") / "plan.json").read_text()
    assert FileRecord.of(root, path).sha256 in noted
    assert before not in noted


def test_a_damaged_shard_goes_whole_and_is_named(root, step, capsys):
    put_table(root, "score", "scores/0.parquet", rows(1), ROWS)
    (root / "scores" / "0.parquet").write_bytes(b"damaged")
    redact_later([step], GONE)
    assert not (root / "scores" / "0.parquet").exists()
    assert step.journal.get("0") is None
    assert capsys.readouterr().err.startswith("score 0: damaged, and let go; it is made anew (")


def test_a_shard_whose_note_names_the_url_goes(root, step):
    write_json(root / "dedup" / "top.json", {"url": "http://x.test/1.jpg"})
    file = FileRecord.of(root, root / "dedup" / "top.json")
    Journal(root, "score").record(ShardRecord("0", "k", (file,), 1, 1))
    redact_later([step], GONE)
    assert not (root / "dedup" / "top.json").exists()


def test_reports_lists_and_tables_of_nobody_lose_the_row(root):
    (root / "recheck").mkdir()
    for name in ("report.html", "recheck/refused.csv"):
        (root / name).write_text("x")
    put_table(root, "none", "left/0.parquet", rows(1, 2), ROWS)
    (root / "left" / "other.parquet").write_bytes(b"no table")
    redact_reports(root, GONE)
    assert not (root / "report.html").exists()
    assert list((root / "recheck").rglob("*")) == []
    assert uids(root, "left/0.parquet") == [uid(2)]
    assert (root / "left" / "other.parquet").read_bytes() == b"no table"


def test_logs_of_the_run_and_those_of_this_machine_lose_the_lines(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    text = b"asked http://x.test/1.jpg\nasked http://x.test/2.jpg\n"
    places = [root / "logs" / "a.log", scratch_of(root) / "logs" / "workers" / "b.log"]
    for path in places:
        write_bytes(path, text)
    redact_logs(root, root, GONE)
    assert [path.read_bytes() for path in places] == [b"asked http://x.test/2.jpg\n"] * 2


def test_what_the_trainer_made_of_the_rows_goes_whole(root):
    for name in ("joins/captions.parquet", "selections/bits.npy", "mine/kept.txt"):
        write_bytes(root / "logs" / name, b"a line\n")
    redact_logs(root, root, GONE)
    assert not (root / "logs" / "joins").exists()
    assert not (root / "logs" / "selections").exists()
    assert (root / "logs" / "mine" / "kept.txt").read_bytes() == b"a line\n"
