"""Which rows tombstones name: by uid, by place, by URL and host in every spelling, and nothing else."""

import hashlib

import pyarrow as pa
import pytest

from filters.tombstones import Wanted, digests, in_hosts, in_uids, lists_of, named_rows, url_digests
from manifests.tombstones import TABLE, Tombstones, value_digest
from pipeline.maintenance.remove.selectors import selector

SAME_URL = [
    "http://pictures.test/a~b/ü.jpg?q=1",
    "HTTPS://PICTURES.test:443/a~b/ü.jpg?q=1",
    "http://pictures.test.:80/a%7eb/%c3%bc.jpg?q=1#top",
    "http://me:word@pictures.test/a%7Eb/%C3%BC.jpg?q=1",
]
OTHER_URLS = [
    "http://pictures.test/a~b/Ü.jpg?q=1",
    "http://pictures.test/a~b/ü.jpg",
    "http://pictures.test:8080/a~b/ü.jpg?q=1",
    "http://cdn.pictures.test/a~b/ü.jpg?q=1",
    "ftp://pictures.test/a~b/ü.jpg?q=1",
    None,
]
SAME_HOST = [
    "http://Bücher.test/1",
    "https://XN--BCHER-KVA.test.:8443/2",
    "http://cdn.bücher.test/3",
    "http://u@a.b.xn--bcher-kva.test?x",
]
OTHER_HOSTS = [
    "http://notbücher.test/1",
    "http://bücher.test.example/",
    "http://elsewhere.test/bücher.test/",
    "bücher.test/1",
    None,
]


def tombstones_of(*selectors, **row):
    """Tombstones of selectors; all of one row where `row` says which."""
    values = [{"kind": one.kind, "value_sha256": one.digest, **row} for one in selectors]
    return Tombstones(pa.Table.from_pylist(values, schema=TABLE))


def columns_of(urls, uids=None, sources=None, rows=None):
    count = len(urls)
    return {
        "url": pa.array(urls, pa.string()),
        "uid": pa.array(uids or [None] * count, pa.binary(16)),
        "source": pa.array(sources or ["b.parquet"] * count, pa.string()),
        "source_row": pa.array(rows or range(count), pa.int64()),
    }


def named(tombstones, urls):
    return named_rows(tombstones, columns_of(urls)).to_pylist()


def test_a_removed_url_is_known_in_every_spelling():
    for spelling in SAME_URL:
        tombstones = tombstones_of(selector("url", spelling))
        assert named(tombstones, SAME_URL + OTHER_URLS) == [True] * len(SAME_URL) + [False] * len(OTHER_URLS)


def test_a_removed_host_is_known_in_every_spelling_and_below():
    for spelling in ("bücher.test", "*.XN--BCHER-KVA.test."):
        tombstones = tombstones_of(selector("host", spelling))
        assert named(tombstones, SAME_HOST + OTHER_HOSTS) == [True] * len(SAME_HOST) + [False] * len(OTHER_HOSTS)


def test_no_spelling_brings_a_removed_url_back():
    """Those that browsers read as one, beside what RFC 3986 has as one."""
    spellings = [
        "http://pictures.test\\x\\..\\a~b\\%C3%BC.jpg?q=1",
        " ht\ttps://pictures.test/./a%7Eb/ü.jp\ng?q=1",
        "http:pictures.test/x/%2e%2E/a~b/ü.jpg?%71=1#",
        "http://\uff50ictu\u00adres.t%65st:080/a~b/ü.jpg?q=1",
    ]
    for spelling in (SAME_URL[0], *spellings):
        tombstones = tombstones_of(selector("url", spelling))
        assert named(tombstones, [*SAME_URL, *spellings, *OTHER_URLS]) == [True] * 8 + [False] * len(OTHER_URLS)
    host = tombstones_of(selector("host", "pictures.test"))
    assert named(host, spellings) == [True] * 4


BEFORE = {
    "http://pictures.test/a/../b.jpg": "pictures.test/a/../b.jpg",
    "http://pictures.test/b.jpg?": "pictures.test/b.jpg?",
    "https://Pictures.test/{b}.jpg?q='1'": "pictures.test/{b}.jpg?q='1'",
    "http://faß.test/b.jpg": "fass.test/b.jpg",
    "http://0x7f.1/b.jpg": "0x7f.1/b.jpg",
    "http://a..b/c.jpg": "a..b/c.jpg",
    "./images/1.jpg": "./images/1.jpg",
}
"""URLs, and what their tombstones of before are the sha256 of: the URL as written, no dot segment resolved."""


@pytest.mark.parametrize("url", BEFORE)
def test_tombstones_of_before_bar_what_they_barred(url):
    digest = hashlib.sha256(BEFORE[url].encode()).hexdigest()
    old = Tombstones(pa.Table.from_pylist([{"kind": "url", "value_sha256": digest}], schema=TABLE))
    assert named(old, [url, "http://pictures.test/c.jpg"]) == [True, False]
    assert Wanted(old).urls(pa.array([url])) == 1


def test_tombstones_of_before_bar_new_spellings_too():
    digest = hashlib.sha256(b"pictures.test/b.jpg").hexdigest()
    old = Tombstones(pa.Table.from_pylist([{"kind": "url", "value_sha256": digest}], schema=TABLE))
    urls = ["http://pictures.test/a/../b.jpg", "http:\\\\pictures.test\\b.jpg?", "http://pictures.te\tst/b.jpg"]
    assert named(old, urls) == [True] * 3
    hosts = [{"kind": "host", "value_sha256": hashlib.sha256(b"fass.test").hexdigest()}]
    of_host = Tombstones(pa.Table.from_pylist(hosts, schema=TABLE))
    assert named(of_host, ["http://faß.test/", "http://cdn.fass.test/", "http://xn--fa-hia.test/"]) == [
        True,
        True,
        False,
    ]


def test_a_removed_path_is_known_in_every_spelling():
    removed = tombstones_of(selector("url", "images/a/../1.jpg", paths=True))
    assert named(removed, ["images/1.jpg", "./images//1.jpg", "images/11.jpg", "1.jpg"]) == [True, True, False, False]


def test_a_removed_row_is_known_by_its_uid_and_by_its_place():
    """The place counts where the input has changed under it: the row's own URL is gone from it by then."""
    tombstones = tombstones_of(
        selector("uid", (b"u" * 16).hex()), uid=b"u" * 16, source="a.parquet", source_row=2, phash=7
    )
    columns = columns_of(
        [None, "http://a.test/", "http://a.test/", None],
        uids=[b"u" * 16, b"v" * 16, None, None],
        sources=["c.parquet", "a.parquet", "a.parquet", "b.parquet"],
        rows=[9, 2, 3, 2],
    )
    assert named_rows(tombstones, columns).to_pylist() == [True, True, False, False]


def test_a_uid_of_which_a_tombstone_of_before_holds_the_digest_alone_is_removed():
    """So they were written where the run had no row of the uid then."""
    former = tombstones_of(selector("uid", "75" * 16))
    columns = columns_of([None, "http://a.test/", None], uids=[b"u" * 16, b"v" * 16, None])
    assert named_rows(former, columns).to_pylist() == [True, False, False]
    assert in_uids(former, columns["uid"]).to_pylist() == [True, False, False]
    wanted = Wanted(former)
    assert (wanted.names("75" * 16), wanted.names("76" * 16)) == (True, False)
    assert wanted.uids(columns["uid"]) == 1
    assert wanted.uids(pa.array(["76" * 16, "75" * 16, None, "75" * 16])) == 2


def test_rows_that_lists_named_elsewhere_are_counted_by_list():
    """By uid or by URL; a row whose place a tombstone has is counted there."""
    rows = [
        {"kind": "md5", "value_sha256": "0" * 64, "uid": b"u" * 16, "list": "a.txt"},
        {"kind": "url", "value_sha256": value_digest("a.test/1"), "list": "b.txt"},
        {"kind": "md5", "uid": b"w" * 16, "source": "b.parquet", "source_row": 3, "list": "a.txt"},
        {"kind": "url", "value_sha256": value_digest("a.test/2")},
    ]
    tombstones = Tombstones(pa.Table.from_pylist(rows, schema=TABLE))
    urls = ["http://a.test/0", "https://A.test/1", "http://a.test/1", "http://a.test/1", "http://a.test/2", None]
    columns = columns_of(urls, uids=[b"u" * 16, *[b"v" * 16] * 5])
    gone = pa.array([True, True, False, True, True, True])
    assert lists_of(tombstones, columns, gone) == {"a.txt": 1, "b.txt": 1}
    assert tombstones.by_list == {"a.txt": 1}
    assert lists_of(Tombstones(TABLE.empty_table()), columns, gone) == {}


def test_nothing_removed_nothing_named():
    assert named(Tombstones(TABLE.empty_table()), [*SAME_URL, None]) == [False] * 5
    assert named(tombstones_of(selector("host", "bücher.test")), []) == []


def test_digests_are_of_the_normalised_value():
    """A URL is hashed without its scheme, as exclusion lists hold it; what is no URL of the web as it stands."""
    sha = [hashlib.sha256(text).hexdigest() for text in (b"a.test/x", b"ftp://a.test/x", b"images/1.jpg")]
    urls = pa.array(["HTTPS://A.test:443/x", "ftp://a.test/x", "images/1.jpg", None])
    assert url_digests(urls).to_pylist() == [*sha, None]
    assert digests(pa.array(["abc", None])).to_pylist() == [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2's example
        None,
    ]


def test_hosts_are_asked_for_with_every_domain_above_them():
    wanted = pa.array([value_digest("b.test")])
    urls = pa.array(["http://a.b.test/", "http://b.test/", "http://test/", "http://xb.test/", "no url", None])
    assert in_hosts(urls, wanted).to_pylist() == [True, True, False, False, False, False]


@pytest.fixture
def wanted():
    row = {"uid": b"u" * 16, "source": "a.parquet", "source_row": 2}
    return Wanted(tombstones_of(selector("url", "http://a.test/1"), selector("host", "b.test"), **row))


def test_urls_hosts_and_uids_that_must_not_be_found_are_counted_once(wanted):
    urls = ["http://A.test/1", "https://a.test/1", "http://a.test/1", "http://c.b.test/", "http://a.test/2", None]
    assert wanted.urls(pa.array(urls)) == 4  # three spellings of one, and a host; the same text twice counts once
    assert wanted.urls(pa.chunked_array([urls, urls])) == 4
    assert wanted.hosts(["b.test", "x.b.test", "b.test", "a.test", "1.5"]) == 2
    assert wanted.hexes == {"75" * 16}  # "u" is 0x75
    assert wanted.uids(pa.array(["75" * 16, "76" * 16, None])) == 1
    assert wanted.uids(pa.array([b"u" * 16, b"v" * 16, b"u" * 16], pa.binary(16))) == 2
    assert wanted.uids(pa.array([b"u" * 16, None], pa.binary())) == 1


def test_a_removal_by_uid_alone_has_no_urls(wanted):
    alone = Wanted(tombstones_of(selector("uid", "75" * 16), uid=b"u" * 16))
    assert (wanted.has_urls, alone.has_urls) == (True, False)
    assert (alone.urls(pa.array(["http://a.test/1"])), alone.hosts(["b.test"])) == (0, 0)
    nobody = Wanted(Tombstones(TABLE.empty_table()))
    assert (nobody.hexes, nobody.uids(pa.array(["75" * 16])), nobody.urls(pa.array([], pa.string()))) == (set(), 0, 0)
