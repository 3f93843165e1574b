"""Identity and every draw from it, in Python and in DuckDB alike."""

import hashlib

import duckdb
import pyarrow as pa

from manifests.uid import HASH_SPAN, UID_SQL, fraction_bound, uid_hash, uid_hash_sql, uid_of

ROWS = [("http://a.test/1.jpg", "a cat"), ("http://ä.test/ü", "zwei\nZeilen"), ("http://b.test", None), (None, "x"), ("", "")]


def test_uid_is_md5_of_url_newline_text():
    assert uid_of("http://a.test/1.jpg", "a cat") == hashlib.md5(b"http://a.test/1.jpg\na cat").digest()
    assert uid_of("u", None) == hashlib.md5(b"u\n").digest()


def test_sql_agrees_with_python():
    urls, texts = zip(*ROWS, strict=True)
    rows = pa.table({"url": pa.array(urls, pa.string()), "text": pa.array(texts, pa.string())})
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        found = connection.execute(f"SELECT {UID_SQL}, {uid_hash_sql(UID_SQL, 7)} FROM rows").fetchall()
    assert found == [(uid_of(*row), uid_hash(uid_of(*row), 7)) for row in ROWS]


def test_a_smaller_share_is_part_of_a_larger_one():
    draws = [uid_hash(uid_of(f"http://a.test/{i}", ""), 1) for i in range(4000)]
    small, large = fraction_bound(0.1), fraction_bound(0.4)
    chosen = {i for i, draw in enumerate(draws) if draw < small}
    assert chosen <= {i for i, draw in enumerate(draws) if draw < large}
    assert 320 < len(chosen) < 480  # 400 expected, sigma 19
    assert fraction_bound(1.0) == HASH_SPAN
