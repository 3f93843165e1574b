"""A shard of the final ledger is put together from the fetch shards that its rows are in."""

import pyarrow as pa
import pytest

from manifests.files import read_json, read_table
from manifests.schema import DIGESTS
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import here
from pipeline.steps import final
from pipeline.steps.decide import Decide
from pipeline.steps.evaluate import scratch_of, units_of
from pipeline.steps.facts import fetch_shards
from pipeline.steps.final import INDEX, Final, IndexEntry, index_entries, tier_lists
from tests.support.filter_runs import final_rows
from tests.support.records import put_table, uid
from tests.support.undecided import FATES, undecided_recipe, undecided_run


def decided(root) -> Decide:
    """Decide the run, and journal it."""
    step = Decide(undecided_recipe(root), root)
    step.journal.record(step.run(step.units()[0], InFlight()))
    return step


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the decided run."""
    root = undecided_run(tmp_path_factory.mktemp("final"))
    decided(root)
    return root


def test_tiers_of_kept_rows_alone():
    passed, kept = pa.array([3, 1, None, 2], pa.uint64()), pa.array([True, False, True, True])
    assert tier_lists(passed, kept, ["a", "b"]).to_pylist() == [["a", "b"], [], [], ["b"]]


def test_every_row_has_its_fate(run):
    rows = final_rows(run)
    assert {(r["source"], r["source_row"]): (r["reason"], r["step"], r["tiers"]) for r in rows} == FATES
    assert [row["fate"] for row in rows].count("kept") == 2
    named = {"a.parquet": ["00000", None, "00000", "00001"], "b.parquet": ["00001", None, "00002", None]}
    assert [row["shard"] for row in rows] == [*named["a.parquet"], *named["b.parquet"]]
    assert [row["width"] for row in rows] == [600, None, 1000, 300, 600, None, 400, None]
    assert [row["width_origin"] for row in rows[:4]] == ["decoded", None, "input", "decoded"]
    assert [row["aesthetic_v2_origin"] for row in rows[:2]] == ["aesthetic_v2 (stand-in weights)", None]
    assert [row["cluster"] for row in rows] == [uid(1), None, None, None, uid(1), None, None, None]
    assert [row["mark"] for row in rows] == [*[None] * 6, "placeholder", "removed"]
    assert [row["md5"] for row in rows[:2]] == [bytes([1]) * 16, None]


def test_a_row_that_a_tombstone_took_says_nothing_but_its_uid(run):
    row = final_rows(run)[7]
    told = {name: value for name, value in row.items() if value not in (None, [])}
    where = {"source": "b.parquet", "source_row": 3, "uid": uid(8)}
    assert told == where | {"fate": "dropped", "reason": "removed", "step": "fetch", "mark": "removed"}


def test_digests_are_left_out_where_all_pairs_are_of_before(tmp_path):
    root = undecided_run(tmp_path, digests=False)
    decided(root)
    names = read_table(root / "ledger" / "final" / "00000.parquet").column_names
    assert names[-4:] == ["shard", "step", "mark", "cluster"]
    assert not set(DIGESTS) & set(names)


def test_files_are_written_in_pieces_of_one_size(tmp_path, monkeypatch):
    """Pages end where pieces do: a table of 2,500,000 rows lies in three."""
    assert final.PIECE == 1_000_000
    monkeypatch.setattr(final, "PIECE", 2)
    assert [len(chunk) for chunk in final._pieces(pa.array(range(5))).chunks] == [2, 2, 1]
    assert final._pieces(pa.chunked_array([[1], [2]])).chunks[0].to_pylist() == [1, 2]
    assert final._pieces(pa.array([], pa.string())).num_chunks == 1


def test_the_index_says_where_each_fetch_shard_lies(tmp_path):
    root = undecided_run(tmp_path)
    shards = list(fetch_shards(root))
    (unit,) = units_of(shards, 6, "")
    said = {"rows": [2, 2, 2], "spans": [[["a", 0, 2]], [["a", 3, 3], ["b", 0, 0]], [["b", 2, 3]]]}
    evaluated = index_entries(unit, said)
    assert [(j.shard.name, j.number, j.start, j.rows) for j in evaluated] == [
        ("00000", 0, 0, 2),
        ("00001", 0, 2, 2),
        ("00002", 0, 4, 2),
    ]
    assert evaluated[1].spans == (("a", 3, 3), ("b", 0, 0))
    assert IndexEntry.of(evaluated[1].plain()) == evaluated[1]


def test_only_fetch_shards_that_hold_its_rows_are_read(tmp_path):
    """Of the three, the shard of a.parquet is in two, and that of b.parquet in two."""
    root, seen = undecided_run(tmp_path), {}

    def watched(step, units):
        if step.name == "final":
            index = read_json(scratch_of(root) / INDEX)
            assert len(index["shards"]) == 3
            for unit in units:
                fates = Final(step.recipe, root)._fates(root / unit.reads["ledger"])
                seen[unit.name] = [facts.shard.name for facts in fates.shards]
                assert fates.place.tolist() == {"00000": [0, -1, 1, 2], "00001": [0, -1, 1, 2]}[unit.name]
        here(step, units)

    step = Decide(undecided_recipe(root), root)
    step.do_unit(step.units()[0], watched)
    assert seen == {"00000": ["00000", "00001"], "00001": ["00001", "00002"]}


def test_a_select_shard_without_rows_has_a_final_one(tmp_path):
    root = undecided_run(tmp_path)
    path = root / "ledger" / "select" / "00000.parquet"
    table = read_table(path).slice(0, 0)
    put_table(root, "select", "ledger/select/00002.parquet", [], table.schema.remove_metadata())
    record = decided(root).journal.get("00000")
    assert (record.rows_in, len(record.files)) == (8, 3)
    assert read_table(root / "ledger" / "final" / "00002.parquet").num_rows == 0
