"""The sample is that of the smallest uids, in whatever order rows come."""

import random

import pyarrow as pa

from captioning.corpus.samples import SmallestUids


def test_the_order_of_the_rows_is_in_no_sample():
    draw = random.Random(4)
    uids = [draw.randbytes(16) for _ in range(1000)]
    smallest = sorted(uids)[:50]
    for seed in range(3):
        random.Random(seed).shuffle(uids)
        sample = SmallestUids(50)
        for start in range(0, 1000, 30):
            some = uids[start : start + 30]
            sample.add(pa.table({"uid": pa.array(some, pa.binary(16)), "text": [uid.hex() for uid in some]}))
            assert sample._rows <= 130
        assert sample.table()["uid"].to_pylist() == smallest
        assert sample.table()["text"].to_pylist() == [uid.hex() for uid in smallest]


def test_few_rows_and_none():
    assert SmallestUids(5).table().num_rows == 0
    sample = SmallestUids(5)
    sample.add(pa.table({"uid": pa.array([b"b" * 16, b"a" * 16], pa.binary(16))}))
    assert sample.table()["uid"].to_pylist() == [b"a" * 16, b"b" * 16]
