"""The most frequent pHashes are counted in parts, and placeholders by their URLs and texts."""

import numpy as np
import pyarrow as pa

from manifests.plans import write_plan
from manifests.schema import schema
from pipeline.steps.frequent import SPELLED, Frequent, asked_for, counted, frequent_hashes, of_shard
from tests.support.records import put_table, uid


def numbers(*values):
    return np.array(values, np.uint64)


def test_pictures_of_a_hash_are_counted():
    assert [side.tolist() for side in counted(numbers(9, 2, 9, 9))] == [[2, 9], [1, 3]]
    assert [side.tolist() for side in counted(numbers())] == [[], []]


def test_the_most_frequent_and_the_often_seen_are_asked_for():
    """102 hashes come twice, of which the smallest 100 are shown; 900 comes five times, 901 once."""
    counts = [
        (np.arange(0, 60, dtype=np.uint64), np.full(60, 2)),
        (np.array([*range(60, 102), 900, 901], np.uint64), np.array([2] * 42 + [5, 1])),
    ]
    for least, wanted in ((0, [*range(99), 900]), (5, [*range(99), 900]), (2, [*range(102), 900])):
        asked, numbers_ = asked_for(counts, least)
        assert asked.tolist() == wanted
        assert numbers_.tolist() == [2] * (len(wanted) - 1) + [5]
        parts = [asked_for([part], least) for part in counts]
        assert asked_for(parts, least).tolist() == [wanted, numbers_.tolist()]  # each part's stand for all of it
    assert asked_for([], 2).tolist() == [[], []]


def test_parts_that_share_no_hash_tell_what_all_of_them_do():
    """Two pictures of 5 under one URL and two texts, one of them none; three of 7 under two URLs, two texts."""
    columns = {name: [] for name in SPELLED.names}
    rows = [(5, 2, 1, 0, 1), (5, 1, 1, 6, 0), (7, 9, 3, 3, 1), (7, 8, 4, 4, 1), (7, 8, 4, 4, 1)]
    for phash, high, url, text, has_text in rows:
        values = {"phash": phash, "high": high, "low": 0, "url_high": 0, "url_low": url, "texts": has_text}
        values |= {"text_high": text, "text_low": 0, "host_high": 0, "host_low": 0}
        for name, value in values.items():
            columns[name].append(value)
    table = pa.table({name: pa.array(values, SPELLED.field(name).type) for name, values in columns.items()})
    frequent = Frequent(2)
    frequent.add(table.slice(0, 2))
    frequent.add(table.slice(2))
    frequent.add(table.slice(5))  # a part without rows
    top, placeholders = frequent.found()
    assert top == [
        {"phash": f"{7:016x}", "pictures": 3, "urls": 2, "hosts": 1, "texts": 2, "example": f"{8:016x}{0:016x}"},
        {"phash": f"{5:016x}", "pictures": 2, "urls": 1, "hosts": 1, "texts": 1, "example": f"{1:016x}{0:016x}"},
    ]
    assert placeholders.tolist() == [7]
    assert Frequent(0).found()[0] == []


def test_pictures_that_the_plan_does_not_name_are_passed_by(tmp_path):
    rows = [{"uid": uid(number), "phash": 7} for number in (1, 2, 3)]
    put_table(tmp_path, "score", "scores/00000.parquet", rows, schema("uid", "phash"))
    table = pa.table({"uid": pa.array([uid(3), uid(1)], pa.binary(16)), "url": ["http://a", "b"], "text": ["x", None]})
    ((_, path, _),) = write_plan(tmp_path, "fetch", [("00000", table)])
    (batch,) = of_shard(tmp_path, "scores/00000.parquet", tmp_path / path, numbers(7))
    assert [(hex(row["high"])[2:4], row["texts"]) for row in batch.to_pylist()] == [("10", 0), ("30", 1)]
    assert list(of_shard(tmp_path, "scores/00000.parquet", tmp_path / path, numbers(8))) == []
    assert list(of_shard(tmp_path, "scores/00000.parquet", tmp_path / "none.parquet", numbers(7))) == []


def test_the_most_frequent_hashes_and_which_make_a_placeholder(tmp_path):
    assert frequent_hashes(tmp_path, 2)[0] == []
    hashes = [7, 7, 7, 255, 255, 9, None, None]
    urls = ["http://A.test/1", "http://u:p@a.test:80/2", "https://b.test?3", "http://c.test/4", "http://c.test/5"]
    urls += [f"http://d.test/{number}" for number in range(3)]
    texts = ["one", "two", "two", "same", "same", "x", "y", "z"]
    uids = [uid(number) for number in range(8)]
    rows = [{"uid": one, "phash": value} for one, value in zip(uids, hashes, strict=True)]
    put_table(tmp_path, "score", "scores/00000.parquet", rows, schema("uid", "phash"))
    write_plan(tmp_path, "fetch", [("00000", pa.table({"uid": uids, "url": urls, "text": texts}))])
    top, placeholders = frequent_hashes(tmp_path, 2)
    columns = ("phash", "pictures", "urls", "hosts", "texts", "example")
    assert [tuple(entry[name] for name in columns) for entry in top] == [
        ("0000000000000007", 3, 3, 2, 2, "00" * 16),
        ("00000000000000ff", 2, 2, 1, 1, "03" * 16),  # one text: no placeholder
    ]
    assert placeholders.tolist() == [7]
    assert [frequent_hashes(tmp_path, least)[1].tolist() for least in (0, 1, 3)] == [[], [7, 255], []]


def test_spellings_of_one_url_are_one_url_of_a_placeholder(tmp_path):
    """Three spellings of one URL, and two URLs: under 2 URLs the first makes none."""
    urls = [
        "http://a.test/1",
        "HTTP://u:p@A.test:80/x/../1#top",
        "http://a.test/%31",
        "http://a.test/2",
        "http://b.test",
    ]
    uids = [uid(number) for number in range(5)]
    rows = [{"uid": one, "phash": value} for one, value in zip(uids, [7, 7, 7, 9, 9], strict=True)]
    put_table(tmp_path, "score", "scores/00000.parquet", rows, schema("uid", "phash"))
    table = {"uid": uids, "url": urls, "text": ["one", "two", "three", "four", "five"]}
    write_plan(tmp_path, "fetch", [("00000", pa.table(table))])
    top, placeholders = frequent_hashes(tmp_path, 2)
    assert [(entry["phash"][-1], entry["pictures"], entry["urls"]) for entry in top] == [("7", 3, 1), ("9", 2, 2)]
    assert placeholders.tolist() == [9]
    assert frequent_hashes(tmp_path, 1)[1].tolist() == [7, 9]
