"""The kept rows of a tier by shard of pairs, their pictures, and the record of the table that is made of them."""

import hashlib
import random

import pyarrow as pa
import pytest

from manifests.files import FormatError, write_table
from manifests.query import connect, files_sql
from manifests.schema import schema
from manifests.shards import ShardError, write_shard
from manifests.uid import uid_hash
from pipeline.execution.step import Unit
from pipeline.steps import kept_pairs
from pipeline.steps.kept_pairs import (
    final_tables,
    kept_by_shard,
    lowest_draws,
    opened,
    opened_rows,
    record_of,
    shard_content,
    unit_pairs,
)
from tests.support.records import put_table, uid
from tests.support.small_web import jpeg, picture

FINAL = pa.schema({"shard": pa.string(), "uid": pa.binary(16), "fate": pa.string(), "tiers": pa.list_(pa.string())})


def final(number, shard, *tiers):
    return {"uid": uid(number), "shard": shard, "fate": "kept" if tiers else "dropped", "tiers": list(tiers)}


@pytest.fixture
def root(tmp_path):
    """Return a run folder that decide has judged, in two tables: rows of a shard of pairs stand in both."""
    one = [final(3, "00001", "fine"), final(2, "00000", "broad"), final(1, "00000", "broad", "fine")]
    put_table(tmp_path, "decide", "ledger/final/00000.parquet", one, FINAL)
    two = [final(0, "00000", "fine"), final(4, "00001"), {**final(5, "00000"), "shard": None}]
    put_table(tmp_path, "decide", "ledger/final/00001.parquet", two, FINAL)
    return tmp_path


def kept(root, *tiers):
    return [(shard, table["uid"].to_pylist()) for shard, table in kept_by_shard(root, list(tiers))]


def test_kept_rows_come_by_shard_and_uid(root):
    assert kept(root, "fine") == [("00000", [uid(0), uid(1)]), ("00001", [uid(3)])]
    assert kept(root, "broad") == [("00000", [uid(1), uid(2)])]
    assert kept(root, "fine", "broad") == [("00000", [uid(0), uid(1), uid(2)]), ("00001", [uid(3)])]
    assert next(table for _, table in kept_by_shard(root, ["fine"])).schema.equals(schema("uid"))


def test_no_tier_nothing_kept_and_no_ledger(root, tmp_path):
    assert kept(root) == kept(root, "other") == kept(tmp_path / "empty", "fine") == []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return a run folder of 300 judged rows in 12 final tables: rows of 25 shards of pairs stand in one to three, now
    and then in one far away."""
    root, draw = tmp_path_factory.mktemp("many"), random.Random(5)
    tables = [[] for _ in range(12)]
    for number in range(300):
        shard, tiers = number // 12, draw.choice([["a"], ["b"], ["a", "b"], []])
        table = draw.randrange(12) if number % 50 == 7 else min(11, shard // 2 + draw.randrange(2))
        row = final(0, None) if number % 40 == 9 else final(0, f"{shard:05d}", *tiers)
        tables[table].append({**row, "uid": draw.randbytes(16)})
    for number, rows in enumerate(tables):
        put_table(root, "decide", f"ledger/final/{number:05d}.parquet", rows, FINAL)
    return root


@pytest.mark.parametrize(("files", "rows"), [(256, 500_000), (2, 500_000), (256, 30), (1, 1)])
def test_some_shards_at_a_time_are_as_all_of_them_together(many, monkeypatch, files, rows):
    with connect(many) as connection:
        query = f"SELECT shard, list(uid ORDER BY uid) FROM {files_sql(final_tables(many))} WHERE shard IS NOT NULL"
        query += " AND fate = 'kept' AND list_has_any(tiers, ?) GROUP BY shard ORDER BY shard"
        expected = connection.execute(query, [["a"]]).fetchall()
    monkeypatch.setattr(kept_pairs, "FILES", files)
    monkeypatch.setattr(kept_pairs, "ROWS", rows)
    assert kept(many, "a") == expected
    assert len(expected) == 25


@pytest.mark.parametrize(("files", "bits"), [(256, 16), (5, 1)])
@pytest.mark.parametrize("most", [1, 17, 100, 1000])
def test_the_lowest_draws_of_a_tier_with_removed_ones_among_them(many, monkeypatch, files, bits, most):
    monkeypatch.setattr(kept_pairs, "FILES", files)
    monkeypatch.setattr(kept_pairs, "BITS", bits)
    there = [uid for _, uids in kept(many, "b") for uid in uids]
    gone = [bytes([number]) * 16 for number in range(20)]
    for removed in ([], gone, [*gone, *there[:9]]):  # one that is there again counts once
        every = sorted({*there, *removed}, key=lambda uid: (uid_hash(uid, 5), uid))
        among = lowest_draws(many, "b", removed, 5, most)
        chosen = {uid for _, table in kept_by_shard(many, ["b"], among) for uid in table["uid"].to_pylist()}
        assert chosen == {*every[:most]} & {*there}


def test_pictures_of_a_unit_are_those_of_its_plan_in_the_tars_order(tmp_path):
    write_shard(tmp_path / "pairs/0.tar", [(uid(n).hex(), {"jpg": b"%d" % n, "txt": b""}) for n in (2, 0, 1)])
    unit = Unit("0", {"tar": "pairs/0.tar"}, "")
    assert list(unit_pairs(tmp_path, unit, [uid(1), uid(2), uid(9)])) == [(uid(2), b"2"), (uid(1), b"1")]
    (tmp_path / "pairs/0.tar").write_bytes((tmp_path / "pairs/0.tar").read_bytes()[:1024])
    with pytest.raises(ShardError):
        list(unit_pairs(tmp_path, unit, [uid(2)]))


def test_a_picture_opens_as_rgb_or_says_why_not():
    grey = opened(jpeg(picture(1, 30, 20)), 10_000)
    assert (grey.shape, grey.dtype) == ((20, 30, 3), "uint8")
    assert opened(jpeg(picture(1, 30, 20)), 599) == "too_many_pixels"
    assert opened(b"", 10_000) == "not_an_image"


def test_every_pair_has_a_row_and_what_did_not_open_its_reason():
    pairs = [(uid(0), b"good"), (uid(1), b"bad")]
    rows, whole = opened_rows(pairs, [["crop"], "truncated"], size=64)
    assert whole == [(uid(0), ["crop"])]
    assert rows == {
        uid(0): {"uid": uid(0), "sha256": hashlib.sha256(b"good").digest(), "reason": None, "size": 64},
        uid(1): {"uid": uid(1), "sha256": hashlib.sha256(b"bad").digest(), "reason": "truncated", "size": 64},
    }
    assert opened_rows([], []) == ({}, [])


def test_rows_with_a_reason_are_dropped_in_the_record(tmp_path):
    write_table(tmp_path / "x/0.parquet", pa.table({"n": [1]}))
    reasons = ["truncated", None, "corrupt", "truncated", None]
    record = record_of(tmp_path, Unit("0", {}, "", "key"), tmp_path / "x/0.parquet", [{"reason": r} for r in reasons])
    assert (record.rows_in, record.rows_out, record.key) == (5, 2, "key")
    assert list(record.dropped.items()) == [("corrupt", 1), ("truncated", 2)]  # by name: the record's bytes are fixed
    assert record.files[0].path == "x/0.parquet"


def test_the_content_of_a_shard_is_that_of_what_fetch_wrote(tmp_path):
    record = put_table(tmp_path, "fetch", "pairs/00007.parquet", [], schema("uid"))
    assert shard_content(tmp_path, "00007") == record.content


@pytest.mark.parametrize("damage", ["{}", "[", None])
def test_a_shard_without_a_readable_record_is_named_and_repair_too(tmp_path, damage):
    path = tmp_path / "manifests/journal/fetch/00007.json"
    put_table(tmp_path, "fetch", "pairs/00007.parquet", [], schema("uid"))
    path.unlink()
    if damage is None:
        path.mkdir()
    else:
        path.write_text(damage)
    with pytest.raises(FormatError, match=r"manifests/journal/fetch/00007\.json: .* pipeline repair mends it"):
        shard_content(tmp_path, "00007")
