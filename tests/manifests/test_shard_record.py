"""A shard's record: rows in are rows kept and dropped, and its content is that of its files."""

import hashlib
from dataclasses import replace

import pytest

from manifests.shard_record import (
    ConservationError,
    ShardRecord,
    by_kind,
    conserve,
    kept_by_kind,
    total_dropped,
)
from tests.support.records import finished_shard


def test_rows_of_a_shard_are_kept_plus_dropped(tmp_path):
    with pytest.raises(ConservationError, match="shard 00000: 3 rows in, but 2 kept"):
        finished_shard(tmp_path, dropped={})
    conserve("all", 6, 1, {"dns": 2, "tls": 3})
    with pytest.raises(ConservationError) as raised:
        conserve("all", 5, 1, {"dns": 2, "tls": 3})
    assert str(raised.value) == "all: 5 rows in, but 1 kept + 5 dropped {'dns': 2, 'tls': 3}"


def test_file_record(tmp_path):
    record = finished_shard(tmp_path).files[0]
    assert (record.path, record.bytes) == ("out/00000.bin", 5)
    assert record.sha256 == hashlib.sha256(b"00000").hexdigest()
    assert record.is_whole(tmp_path)
    (tmp_path / "out" / "00000.bin").write_bytes(b"cut")
    assert not record.is_whole(tmp_path)


def test_content_and_totals(tmp_path):
    one, two = finished_shard(tmp_path), finished_shard(tmp_path, "00001", dropped={"nsfw": 1})
    assert one.content != two.content
    assert one.content == replace(one, key="other").content
    assert total_dropped([one, two, two]) == {"nsfw": 2, "size": 1}


def test_reasons_are_added_most_frequent_first_then_by_name():
    shards = [
        ShardRecord("0", "k", (), 9, 2, {"tls": 3, "dns": 3, "size": 1}),
        ShardRecord("1", "k", (), 5, 0, {"size": 5}),
    ]
    assert list(total_dropped([*shards, ShardRecord("2", "k", (), 1, 1, {"robots": 0})]).items()) == [
        ("size", 6),
        ("dns", 3),
        ("tls", 3),
    ]


def test_rows_are_added_up_by_tier():
    shards = [
        ShardRecord(name, "k", (), rows, rows) for name, rows in (("b-x-00000", 1), ("a-00000", 2), ("a-00001", 3))
    ]
    assert list(kept_by_kind(shards).items()) == [("a", 5), ("b-x", 1)]


def test_records_by_the_kind_of_their_shards():
    records = [ShardRecord(name, "k", (), rows, rows) for name, rows in (("b-00", 3), ("a-x-00", 1), ("b-01", 4))]
    assert {kind: [one.shard for one in own] for kind, own in by_kind(records).items()} == {
        "b": ["b-00", "b-01"],
        "a-x": ["a-x-00"],
    }
    assert list(kept_by_kind(records).items()) == [("a-x", 1), ("b", 7)]
