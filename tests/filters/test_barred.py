"""One URL at a time, as redirects bring them: filters/barred.py says what the tables' way says (filters/exclude.py)."""

import pyarrow as pa
import pytest

from filters.barred import BarredUrls
from filters.exclude import read_list
from manifests.tombstones import TABLE, Tombstones, value_digest

NOBODY = Tombstones(TABLE.empty_table())


def listed(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    return read_list(tmp_path / "a.txt")


def removed(**values):
    rows = [{"kind": kind, "value_sha256": value_digest(value)} for kind, value in values.items()]
    return Tombstones(pa.Table.from_pylist(rows, schema=TABLE))


@pytest.mark.parametrize("by", ["list", "tombstone"])
def test_a_named_url_and_a_named_host_are_known_in_every_spelling(tmp_path, by):
    of_url, of_host = (
        (BarredUrls.of([listed(tmp_path, "http://x.test/a/../b\n")], NOBODY), None)
        if by == "list"
        else (BarredUrls.of([], removed(url="x.test/b")), BarredUrls.of([], removed(host="x.test")))
    )
    of_host = of_host or BarredUrls.of([listed(tmp_path, "host\nX.test\n")], NOBODY)
    same = ["https://x.test/b?", "http:\\\\X.test.\\b", "http://x.test/./%62"]
    others = ["http://x.test/c", "http://x.test:8/b", "http://cdn.x.test/b"]
    assert [of_url.names(url) for url in (*same, *others)] == [True] * 3 + [False] * 3
    assert [of_host.names(url) for url in (*same, *others)] == [True] * 6
    assert [of_host.names(url) for url in ("http://xx.test/", "http://test/", "ftp://x.test/", "no url")] == [False] * 4


def test_what_is_named_by_other_things_is_no_url(tmp_path):
    assert BarredUrls.of([listed(tmp_path, "uid\n" + "a" * 32)], removed(uid="a" * 32)) == BarredUrls()
    assert not BarredUrls().names("http://x.test/")
    before = BarredUrls.of([listed(tmp_path, "host\nfaß.test\n")], NOBODY)
    assert [before.names(f"http://{host}/") for host in ("fass.test", "faß.test", "fas.test")] == [True, True, False]
