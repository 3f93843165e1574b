"""pipeline/maintenance/remove/tombstone_rows.py: what a tombstone keeps of a row, from tables written by hand."""

import pyarrow as pa
import pytest

from manifests.files import write_table
from manifests.plans import plan_folder
from manifests.tombstones import TABLE, value_digest
from pipeline.execution.step import Step
from pipeline.maintenance.remove.selectors import Selector
from pipeline.maintenance.remove.tombstone_rows import NOBODY, tombstones_of, urls_of
from pipeline.recipes.load import parse_recipe
from tests.support.records import put_table, uid

ROW = pa.schema([("uid", pa.binary(16)), ("url", pa.string()), ("source", pa.string()), ("source_row", pa.int64())])
FINAL = pa.schema(
    [*(field for field in ROW if field.name != "url"), ("fate", pa.string()), ("tiers", pa.list_(pa.string()))]
)
URL = Selector("url", "a.test/1.jpg")


def row(number, place, **more):
    return {
        "uid": uid(number),
        "url": f"http://a.test/{number}.jpg",
        "source": "a.parquet",
        "source_row": place,
        **more,
    }


class Packed(Step):
    """A step that cuts shards: the sample of uid 1 counts 700 bytes in one tier."""

    def packed_bytes(self, uids):
        return {uid(1): {"pretrain": 700}} if uid(1) in uids else {}


@pytest.fixture
def root(tmp_path):
    """Return a run of three rows, two of them of uid 1; the first of these was planned, fetched, scored and kept."""
    rows = [row(1, 0), row(1, 1), row(2, 2, url=None)]
    put_table(tmp_path, "select", "ledger/select/00000.parquet", rows, ROW)
    scores = pa.schema([("uid", pa.binary(16)), ("phash", pa.uint64())])
    put_table(tmp_path, "score", "scores/00000.parquet", [{"uid": uid(1), "phash": 255}], scores)
    plan = pa.Table.from_pylist([row(1, 0)], schema=ROW)
    write_table(plan_folder(tmp_path, "fetch") / "00007.parquet", plan)
    finals = [
        row(1, 0, fate="kept", tiers=["pretrain", "finetune"]),
        row(1, 1, fate="dropped", tiers=[]),
        row(2, 2, fate="dropped", tiers=[]),
    ]
    put_table(tmp_path, "decide", "ledger/final/00000.parquet", finals, FINAL)
    return tmp_path


def steps(root):
    return [kind(parse_recipe({"tier": {"pretrain": {"size": 64}}}), root) for kind in (Step, Packed)]


def test_urls_are_those_of_the_rows(root):
    assert urls_of(root, {uid(1)}) == {"http://a.test/1.jpg"}
    assert urls_of(root, {uid(2), uid(9)}) == set()


def test_a_row_per_place_says_what_became_of_it(root):
    head = {"kind": "url", "value_sha256": value_digest("a.test/1.jpg"), "promote": False}
    first, second = tombstones_of(root, steps(root), {URL: {uid(1)}}, False)
    assert first == {
        **head,
        "uid": uid(1),
        "source": "a.parquet",
        "source_row": 0,
        "phash": 255,
        "shard": "00007",
        "tiers": ["pretrain", "finetune"],
        "packed": ["pretrain"],
        "packed_bytes": [700],
        "won": True,
    }
    # a duplicate of it: never planned, so that it leaves no gap
    assert second == {
        **first,
        "source_row": 1,
        "shard": None,
        "tiers": [],
        "packed": [],
        "packed_bytes": [],
        "won": False,
    }
    assert set(first) == set(TABLE.names) - {"list"}  # of lists of hashes alone


def test_a_row_that_was_never_fetched_has_no_hash_and_no_gap(root):
    (only,) = tombstones_of(root, steps(root), {Selector("uid", uid(2).hex()): {uid(2)}}, True)
    assert (only["phash"], only["shard"], only["won"], only["promote"]) == (None, None, False, True)


def test_a_selector_that_names_no_row_leaves_one_tombstone(root):
    absent = {Selector("host", "gone.test"): set(), Selector("phash", "00000000000000ff"): set()}
    host, phash = tombstones_of(root, [], absent, False)
    assert host == {
        **NOBODY,
        "kind": "host",
        "value_sha256": value_digest("gone.test"),
        "won": False,
        "promote": False,
    }
    assert (phash["kind"], phash["phash"], phash["uid"]) == ("phash", 255, None)


def test_a_phash_is_the_selectors_and_not_the_pictures(root):
    """Another picture's hash within the radius may have led to the row."""
    (first, _) = tombstones_of(root, [], {Selector("phash", "00000000000000fe"): {uid(1)}}, False)
    assert first["phash"] == 254


def test_two_selectors_of_one_row_leave_a_tombstone_each(root):
    both = {URL: {uid(1)}, Selector("uid", uid(1).hex()): {uid(1)}}
    assert [entry["kind"] for entry in tombstones_of(root, [], both, False)] == ["url", "url", "uid", "uid"]


def test_a_uid_that_no_ledger_knows_stands_in_its_tombstone(root):
    """It lies aside, or comes with later input: its rows are told by it all the same."""
    absent, aside = Selector("uid", uid(7).hex()), {Selector("uid", uid(8).hex()): {uid(8)}, URL: {uid(1), uid(8)}}
    (only,) = tombstones_of(root, [], {absent: set()}, False)
    head = {"kind": "uid", "value_sha256": value_digest(uid(7).hex()), "won": False, "promote": False}
    assert only == {**NOBODY, **head, "uid": uid(7)}
    found = tombstones_of(root, [], aside, False)
    assert sorted((one["kind"], one["uid"], one["source_row"]) for one in found if one["uid"] == uid(8)) == [
        ("uid", uid(8), None),
        ("url", uid(8), None),
    ]
    assert len(found) == 4
