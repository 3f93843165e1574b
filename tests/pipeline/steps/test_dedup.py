"""Near duplicates are clustered over every shard, removed pictures among them as if they were still there."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.schema import schema
from pipeline.execution.in_flight import InFlight
from pipeline.recipes.load import parse_recipe
from pipeline.steps.at_once import among_removed
from pipeline.steps.dedup import Dedup
from tests.support.records import put_table, uid

RECIPE = {"dedup": {"radius": 2, "placeholder_min": 0}, "tier": {"a": {"size": 16}}}
FAR = 0xFFFF_FFFF_0000_0000
"""32 bits away from 0."""


def pictures(**hashes):
    """Return a table of (uid, phash): the names are _NUMBER of the uid."""
    rows = [{"uid": uid(int(name[1:])), "phash": value} for name, value in hashes.items()]
    return pa.Table.from_pylist(rows, schema=schema("uid", "phash"))


def removed(*rows):
    """Return neighbours (number of the uid, pHash, whether it bars) as `Tombstones` gives them."""
    fields = {"uid": pa.binary(16), "phash": pa.uint64(), "bars": pa.bool_()}
    return pa.Table.from_pylist(
        [{"uid": uid(n), "phash": value, "bars": bars} for n, value, bars in rows], schema=pa.schema(fields)
    )


def clustered(pictures_, removed_, radius=2):
    labels, barred = among_removed(pictures_, removed_, radius)
    return labels.tolist(), barred.tolist()


def test_a_chain_of_near_hashes_is_one_cluster():
    chain = pictures(_1=0b0, _2=0b11, _3=0b1111, _4=FAR)  # 1 and 3 are 4 bits apart, 2 is 2 bits from both
    assert clustered(chain, removed()) == ([0, 0, 0, 3], [False] * 4)
    assert clustered(chain, removed(), radius=1) == ([0, 1, 2, 3], [False] * 4)


def test_a_removed_picture_still_connects_its_neighbours_and_bars_them_where_it_had_won():
    ends = pictures(_1=0b0, _2=0b1111, _3=FAR)
    assert clustered(ends, removed((9, 0b11, True))) == ([0, 0, 2], [True, True, False])
    assert clustered(ends, removed((9, 0b11, False))) == ([0, 0, 2], [False] * 3)
    assert clustered(ends, removed()) == ([0, 1, 2], [False] * 3)


def test_nothing_to_cluster():
    assert clustered(pictures(), removed()) == ([], [])
    assert clustered(pictures(), removed((9, 0, True))) == ([], [])


@pytest.fixture
def root(tmp_path):
    """Return a run folder of two shards: 3 and 1 are near duplicates, 2 did not open, 4 is like no other."""
    scores = [[{"uid": uid(3), "phash": 0b1}, {"uid": uid(2), "reason": "truncated"}]]
    scores.append([{"uid": uid(4), "phash": FAR}, {"uid": uid(1), "phash": 0b0}])
    plan = schema("uid", "url", "text", "top_caption")
    for number, rows in enumerate(scores):
        put_table(tmp_path, "score", f"scores/{number:05d}.parquet", rows, schema("uid", "phash", "reason"))
        urls = [{"uid": row["uid"], "url": f"http://x.test/{row['uid'][0]}", "text": "two words"} for row in rows]
        put_table(tmp_path, "plan", f"manifests/plan/fetch/{number:05d}.parquet", urls, plan)
    return tmp_path


def test_clusters_go_over_shards_and_are_called_by_their_smallest_uid(root, capsys):
    step = Dedup(parse_recipe(RECIPE), root)
    (unit,) = step.plan()
    record = step.open().run(unit, InFlight())
    assert pq.read_table(root / "dedup" / "00000.parquet").to_pylist() == [
        {"uid": uid(1), "cluster": uid(1)},
        {"uid": uid(3), "cluster": uid(1)},
        {"uid": uid(4), "cluster": uid(4)},
    ]
    assert (record.rows_in, record.rows_out) == (3, 3)
    assert [file.path for file in record.files] == [
        "dedup/00000.parquet",
        "ledger/marks.parquet",
        "ledger/eval_matches.parquet",
        "dedup/top_hashes.json",
    ]
    assert pq.read_table(root / "ledger" / "marks.parquet").num_rows == 0
    assert json.loads((root / "dedup" / "top_hashes.json").read_text())["hashes"] == []  # no hash comes twice
    assert capsys.readouterr().out == ""
    step.journal.record(record)
    assert step.outcome_notes() == ["\n  dedup: 3 pictures, 1 clusters of two and more, the largest of 2"]


def test_the_unit_runs_again_where_any_score_is_another(root):
    step = Dedup(parse_recipe(RECIPE), root)
    before = step.plan()[0].content
    assert step.plan()[0].content == before
    put_table(root, "score", "scores/00001.parquet", [{"uid": uid(4), "phash": 5}], schema("uid", "phash"))
    assert step.plan()[0].content != before
