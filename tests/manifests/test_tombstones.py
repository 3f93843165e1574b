"""The tombstones of a run: what is written is read again, by this run and as exclusion lists by another."""

import hashlib

from filters.exclude import read_list
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


def tombstones_of(root, *selectors, **row):
    head = {"won": False, "promote": False}
    write_tombstones(
        root, [{**NOBODY, **head, **row, "kind": one.kind, "value_sha256": one.digest} for one in selectors]
    )
    return read_tombstones(root)


def test_another_run_takes_them_as_lists_of_uids_and_phashes(tmp_path):
    tombstones_of(tmp_path, selector("url", "http://a.test/1"), uid=b"u" * 16, phash=255)
    assert read_list(tmp_path / TOMBSTONES, "uid").values.to_pylist() == [b"u" * 16]
    assert read_list(tmp_path / TOMBSTONES, "phash").values.to_pylist() == [255]


def test_digests_are_wanted_of_uids_that_stand_in_no_tombstone(tmp_path):
    with_uid = tombstones_of(tmp_path, selector("uid", "75" * 16), uid=b"u" * 16)
    assert with_uid.uid_digests.to_pylist() == []
    without = tombstones_of(tmp_path, selector("uid", "75" * 16), selector("url", "http://a.test/1"))
    sha256 = hashlib.sha256(b"75" * 16).hexdigest()
    assert (without.uids.to_pylist(), without.uid_digests.to_pylist()) == ([], [sha256])
