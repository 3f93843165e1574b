"""Conservation is asserted, a digest is that of the content, the journal tells what is done."""

import hashlib
import json
from dataclasses import replace

import pytest

from manifests.journal import ConservationError, FileRecord, Journal, ShardRecord, total_dropped
from manifests.manifest import Manifest, ManifestError, shard_list


def record_of(tmp_path, name="00000", key="k", **kwargs):
    path = tmp_path / "out" / f"{name}.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode())
    values = {"rows_in": 3, "rows_out": 2, "dropped": {"size": 1}} | kwargs
    return ShardRecord(name, key, (FileRecord.of(tmp_path, path),), **values)


def manifest(**kwargs):
    values = {
        "stage": "filter",
        "recipe_digest": "r",
        "inputs": [],
        "weights": [],
        "rows_in": 3,
        "kept": 2,
        "dropped": {"size": 1},
    }
    return Manifest(**(values | {"shards": [], "losses": [], "tiers": {}, "versions": {"python": "3"}} | kwargs))


def test_rows_in_are_kept_plus_dropped(tmp_path):
    with pytest.raises(ConservationError, match="3 rows in, but 2 kept"):
        record_of(tmp_path, dropped={})
    with pytest.raises(ConservationError):
        manifest(kept=3)


def test_file_record(tmp_path):
    record = record_of(tmp_path).files[0]
    assert (record.path, record.bytes) == ("out/00000.bin", 5)
    assert record.sha256 == hashlib.sha256(b"00000").hexdigest()
    assert record.is_whole(tmp_path)
    (tmp_path / "out" / "00000.bin").write_bytes(b"cut")
    assert not record.is_whole(tmp_path)


def test_digest_is_of_everything_but_versions(tmp_path):
    one = manifest()
    assert one.digest == manifest(versions={"python": "4"}).digest
    for change in (
        {"recipe_digest": "s"},
        {"tiers": {"a": 1}},
        {"weights": [{"name": "w"}]},
        {"facts": {"x": 1}},
        {"losses": [{"name": "f"}]},
    ):
        assert manifest(**change).digest != one.digest


def test_a_changed_manifest_is_not_believed(tmp_path):
    path = manifest().write(tmp_path)
    assert Manifest.read(path) == manifest()
    entry = json.loads(path.read_text())
    entry["kept"], entry["dropped"] = 3, {}
    path.write_text(json.dumps(entry))
    with pytest.raises(ManifestError, match="changed after it was written"):
        Manifest.read(path)


def test_done_needs_the_key_and_the_files(tmp_path):
    journal, record = Journal(tmp_path, "select"), record_of(tmp_path)
    journal.record(record)
    assert journal.done("00000", "k") == record
    assert journal.done("00000", "other") is None
    assert journal.done("00001", "k") is None
    (tmp_path / "out" / "00000.bin").unlink()
    assert journal.done("00000", "k") is None


def test_a_later_run_tries_dead_rows_again(tmp_path):
    journal = Journal(tmp_path, "score")
    journal.record(record_of(tmp_path, dropped={"worker_died": 1}))
    assert journal.get("00000") is not None
    assert journal.done("00000", "k") is None


def test_a_damaged_entry_means_make_it_again(tmp_path):
    journal = Journal(tmp_path, "select")
    journal.record(record_of(tmp_path))
    (journal.folder / "00000.json").write_text('{"format": 1, "shard": "0')
    assert journal.get("00000") is None


def test_shards_that_left_the_plan_go_with_their_files(tmp_path):
    journal = Journal(tmp_path, "fetch")
    for name in ("00000", "00001"):
        journal.record(record_of(tmp_path, name))
    assert journal.forget_others(["00000"]) == 1
    assert not (tmp_path / "out" / "00001.bin").exists()
    assert (tmp_path / "out" / "00000.bin").exists()


def test_content_and_totals(tmp_path):
    one, two = record_of(tmp_path), record_of(tmp_path, "00001", dropped={"nsfw": 1})
    assert one.content != two.content
    assert one.content == replace(one, key="other").content
    assert total_dropped([one, two, two]) == {"nsfw": 2, "size": 1}


def test_what_a_file_counts_as_stands_for_its_bytes(tmp_path):
    """The history of a fetch is in its ledger, but only its end is in digests."""
    record = record_of(tmp_path)
    one, two = (
        replace(record, files=(replace(record.files[0], sha256=sha256, bytes=n, counted="end"),))
        for sha256, n in (("a", 1), ("b", 2))
    )
    assert one.content == two.content != record.content
    assert manifest(shards=shard_list("fetch", [one])).digest == manifest(shards=shard_list("fetch", [two])).digest
    assert manifest(shards=shard_list("fetch", [one])).digest != manifest(shards=shard_list("fetch", [record])).digest
    other = replace(one, files=(replace(one.files[0], counted="another end"),))
    assert manifest(shards=shard_list("fetch", [one])).digest != manifest(shards=shard_list("fetch", [other])).digest
