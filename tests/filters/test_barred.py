"""One URL at a time, as redirects bring them: filters/barred.py says what the tables' way says (filters/exclude.py)."""

import pyarrow as pa
import pytest

from filters.barred import BarredUrls
from filters.exclude import read_list
from filters.url_forms import url_forms
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


@pytest.mark.parametrize("by", ["list", "tombstone"])
@pytest.mark.parametrize("written", [0, 1])
def test_a_redirect_to_another_percent_encoding_of_what_is_named_is_known(tmp_path, by, written):
    pairs = [
        ("http://x.test/File:Foo_(bar).jpg", "http://x.test/File%3AFoo_%28bar%29.jpg"),
        ("http://x.test/a|b{}^'", "http://x.test/a%7Cb%7B%7D%5E%27"),
        ("http://x.test/?a=b,[@]!", "http://x.test/?a=b%2C%5B%40%5D%21"),
    ]
    for pair in pairs:
        named, asked = pair[written], pair[1 - written]
        form = url_forms(pa.array([named])).now[0].as_py()
        barred = (
            BarredUrls.of([listed(tmp_path, named)], NOBODY) if by == "list" else BarredUrls.of([], removed(url=form))
        )
        assert [barred.names(url) for url in (named, asked, f"{asked}x")] == [True, True, False]


def test_tombstones_of_before_go_on_to_bar_what_they_named():
    """Their values are forms of the URL as written, with `%7C` and dot segments as they stood."""
    for form in ("x.test/a%7Cb", "x.test/a/.b/../c"):
        assert BarredUrls.of([], removed(url=form)).names(f"https://{form}")


def test_what_is_named_by_other_things_is_no_url(tmp_path):
    assert BarredUrls.of([listed(tmp_path, "uid\n" + "a" * 32)], removed(uid="a" * 32)) == BarredUrls()
    assert not BarredUrls().names("http://x.test/")
    before = BarredUrls.of([listed(tmp_path, "host\nfaß.test\n")], NOBODY)
    assert [before.names(f"http://{host}/") for host in ("fass.test", "faß.test", "fas.test")] == [True, True, False]
