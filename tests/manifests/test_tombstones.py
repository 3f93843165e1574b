"""manifests/tombstones.py and filters/tombstones.py: what comes later is known again in whatever form, and nothing else
is."""

import pyarrow as pa

from filters.exclude import read_list
from filters.tombstones import named_rows
from manifests.tombstones import TOMBSTONES, read_tombstones, write_tombstones
from pipeline.maintenance.remove.selectors import selector

NOBODY = {
    "phash": None,
    "uid": None,
    "source": None,
    "source_row": None,
    "shard": None,
    "tiers": [],
    "packed": [],
    "packed_bytes": [],
}
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


def tombstones_of(root, *selectors, **row):
    head = {"won": False, "promote": False}
    write_tombstones(
        root, [{**NOBODY, **head, **row, "kind": one.kind, "value_sha256": one.digest} for one in selectors]
    )
    return read_tombstones(root)


def named(tombstones, urls):
    count = len(urls)
    place = {"source": pa.repeat("b.parquet", count), "source_row": pa.array(range(count), pa.int64())}
    return named_rows(
        tombstones, {"url": pa.array(urls, pa.string()), "uid": pa.nulls(count, pa.binary(16)), **place}
    ).to_pylist()


def test_a_removed_url_is_known_in_every_spelling(tmp_path):
    for spelling in SAME_URL:
        tombstones = tombstones_of(tmp_path, selector("url", spelling))
        assert named(tombstones, SAME_URL + OTHER_URLS) == [True] * len(SAME_URL) + [False] * len(OTHER_URLS)


def test_a_removed_host_is_known_in_every_spelling_and_below(tmp_path):
    for spelling in ("bücher.test", "*.XN--BCHER-KVA.test."):
        tombstones = tombstones_of(tmp_path, selector("host", spelling))
        assert named(tombstones, SAME_HOST + OTHER_HOSTS) == [True] * len(SAME_HOST) + [False] * len(OTHER_HOSTS)


def test_another_run_takes_them_as_lists_of_uids_and_phashes(tmp_path):
    tombstones_of(tmp_path, selector("url", "http://a.test/1"), uid=b"u" * 16, phash=255)
    assert read_list(tmp_path / TOMBSTONES, "uid").values.to_pylist() == [b"u" * 16]
    assert read_list(tmp_path / TOMBSTONES, "phash").values.to_pylist() == [255]
