"""pipeline/execution/stand_ins.py: which rows that lie aside have the same answer in a shard or aside under other
settings, so that no second copy is kept."""

import pyarrow as pa
import pytest

from manifests.aside import ASIDE, Group, groups
from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.query import connect
from manifests.tables import ATTEMPTS
from pipeline.execution.fallen import keep_fallen
from pipeline.execution.reuse import set_aside, stamp
from pipeline.execution.stand_ins import StandIn, note_stand_ins
from tests.support.records import uid

KEPT = [(1, None, "one"), (2, None, "two"), (3, "timeout", None), (4, "http_404", None)]
"""(number of the row, reason, picture)."""


def fetched(root, name, made_by, rows, came=()):
    """Write a fetch's shard and return its record; `came`: pictures that were stored as they came."""
    ledger, pairs = root / "ledger" / "fetch" / f"{name}.parquet", root / "pairs" / f"{name}.parquet"
    entries = [
        {"uid": uid(number), "attempt": 1, "last": True, "http_status": None if reason else 200, "reason": reason}
        for number, reason, _ in rows
    ]
    write_table(ledger, stamp(pa.Table.from_pylist(entries, schema=ATTEMPTS), made_by))
    columns = {
        "key": [uid(number).hex() for number, _, _ in rows],
        "url": ["http://x.test/"] * len(rows),
        "caption": ["words"] * len(rows),
        "sha256": pa.array([picture for _, _, picture in rows], pa.string()),
        "source_sha256": pa.array([p if p in came else p and f"body of {p}" for _, _, p in rows], pa.string()),
    }
    write_table(pairs, pa.table(columns))
    files = tuple(FileRecord.of(root, path) for path in (pairs, ledger))
    return ShardRecord(name, "key", files, len(rows), len(rows))


def plan(root, record, by):
    """Let this be the fetch's only shard, and settle; return what is said."""
    journal = Journal(root, "fetch")
    old = [journal.get(path.stem) for path in sorted(journal.folder.glob("*.json"))]
    set_aside(root, "fetch", old)
    for one in old:
        (journal.folder / f"{one.shard}.json").unlink()
    journal.record(record)
    return keep_fallen(root, "fetch", "", None, by)


def left(root):
    """Return (how they were made, rows) of the groups that lie aside."""
    return sorted((group.made_by, group.rows) for group in groups(root, ASIDE, "fetch"))


@pytest.mark.parametrize(
    ("rows", "stand_in", "wanted"),
    [
        (KEPT, None, [("a", 4)]),  # other settings whose answers stand for nothing
        (KEPT, StandIn(), []),
        (KEPT, StandIn(frozenset({"timeout"})), [("a", 1)]),
        (KEPT, StandIn(as_received=True), [("a", 1)]),  # `two` was not stored as it came
        ([(1, None, "other"), *KEPT[1:]], StandIn(), [("a", 1)]),
        ([(1, None, "one"), (2, "http_404", None), (3, None, "three")], StandIn(), [("a", 3)]),
    ],
    ids=["none", "all", "reason", "as-received", "another-picture", "other-answers"],
)
def test_a_row_whose_answer_the_shards_hold_is_not_kept_again(tmp_path, rows, stand_in, wanted):
    by = {"a": {"b": stand_in} if stand_in else {}}
    plan(tmp_path, fetched(tmp_path, "00000", "a", KEPT), by.get)
    plan(tmp_path, fetched(tmp_path, "00001", "b", rows, came=["one"]), lambda made_by: by.get(made_by, {}))
    assert left(tmp_path) == wanted


def test_of_groups_aside_that_stand_for_each_other_one_stays(tmp_path):
    for name in "abc":
        plan(tmp_path, fetched(tmp_path, name, name, KEPT), lambda _: {})
    assert left(tmp_path) == [("a", 4), ("b", 4)]
    each = {"a": {"b": StandIn()}, "b": {"a": StandIn()}}
    (said,) = plan(tmp_path, fetched(tmp_path, "d", "c", KEPT), lambda made_by: each.get(made_by, {}))
    assert said == "fetch: 4 rows that were set aside go: the same answers are held elsewhere"
    assert left(tmp_path) == [("b", 4)]


def test_a_group_without_all_of_its_files_and_a_damaged_table_stand_for_nothing(tmp_path):
    for name in "abc":
        plan(tmp_path, fetched(tmp_path, name, name, KEPT), lambda _: {})
    there = {group.made_by: group for group in groups(tmp_path, ASIDE, "fetch")}

    def stood(found: list[Group]) -> int:
        with connect(tmp_path) as connection:
            note_stand_ins(connection, tmp_path, "fetch", found, {}, lambda _: {"b": StandIn()})
            return connection.execute("SELECT count(*) FROM stood").fetchone()[0]

    assert stood([there["a"]]) == 4
    pairs = next(there["b"].folder / f.path for f in there["b"].files if f.path.endswith("-pairs.parquet"))
    whole = pairs.read_bytes()
    pairs.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    assert stood([there["a"]]) == 0
    pairs.unlink()
    assert stood([there["a"]]) == 0
