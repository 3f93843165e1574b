"""Identity and every draw from it, in Python and in DuckDB alike."""

import hashlib

import duckdb
import pyarrow as pa

from manifests.uid import HASH_SPAN, Uids, fraction_bound, uid_hash, uid_hash_sql, uid_of

ROWS = [
    ("http://a.test/1.jpg", "a cat"),
    ("http://ä.test/ü", "zwei\nZeilen"),
    ("http://b.test", None),
    (None, "x"),
    ("", ""),
]


def test_uid_is_md5_of_url_newline_text():
    assert uid_of("http://a.test/1.jpg", "a cat") == hashlib.md5(b"http://a.test/1.jpg\na cat").digest()
    assert uid_of("u", None) == hashlib.md5(b"u\n").digest()


def test_many_rows_at_once_agree_with_one_at_a_time():
    urls, texts = (pa.array(column, pa.string()) for column in zip(*ROWS, strict=True))
    bound = sorted(uid_hash(uid_of(*row), 7) for row in ROWS)[2]
    uids, chosen = Uids(7).of(urls, texts, bound)
    assert uids.to_pylist() == [uid_of(*row) for row in ROWS]
    assert chosen.to_pylist() == [uid_hash(uid_of(*row), 7) < bound for row in ROWS]
    assert sum(chosen.to_pylist()) == 2
    assert Uids().of(urls, None)[0].to_pylist() == [uid_of(url, None) for url, _ in ROWS]
    assert Uids().of(urls.slice(1, 2), texts.slice(1, 2))[0].to_pylist() == uids.to_pylist()[1:3]
    assert Uids().of(urls.slice(0, 0), texts.slice(0, 0))[0].to_pylist() == []


def test_sql_draws_as_python_does():
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"uid": [uid_of(*row) for row in ROWS]}))
        found = connection.execute(f"SELECT {uid_hash_sql('uid', 7)} FROM rows").fetchall()
    assert found == [(uid_hash(uid_of(*row), 7),) for row in ROWS]


def test_a_smaller_share_is_part_of_a_larger_one():
    draws = [uid_hash(uid_of(f"http://a.test/{i}", ""), 1) for i in range(4000)]
    small, large = fraction_bound(0.1), fraction_bound(0.4)
    chosen = {i for i, draw in enumerate(draws) if draw < small}
    assert chosen <= {i for i, draw in enumerate(draws) if draw < large}
    assert 320 < len(chosen) < 480  # 400 expected, sigma 19
    assert fraction_bound(1.0) == HASH_SPAN
