"""A manifest's rows add up, its digest is that of its content, and a changed one is not believed."""

import json
from dataclasses import replace

import pytest

from manifests.journal import ConservationError
from manifests.manifest import Manifest, ManifestError, shard_list
from tests.support.records import finished_shard


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


def test_rows_in_are_kept_plus_dropped():
    with pytest.raises(ConservationError, match="3 rows in, but 3 kept"):
        manifest(kept=3)


def test_what_is_counted_from_listed_files_is_no_part_of_the_digest(tmp_path):
    """Manifests of before lack the counts of refusals: their digests are those of today."""
    counted = manifest(facts={"refusals": {"robots.txt": 3}})
    assert counted.digest == manifest().digest
    assert manifest(facts={"x": 1, "refusals": {"robots.txt": 3}}).digest == manifest(facts={"x": 1}).digest
    assert manifest(facts={"removed_by_list": {"a.txt": 3}}).digest == manifest().digest
    assert Manifest.read(counted.write(tmp_path)).facts == {"refusals": {"robots.txt": 3}}


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


def test_what_a_file_counts_as_stands_for_its_bytes(tmp_path):
    """The history of a fetch is in its ledger, but only its end is in digests."""
    record = finished_shard(tmp_path)
    one, two = (
        replace(record, files=(replace(record.files[0], sha256=sha256, bytes=n, counted="end"),))
        for sha256, n in (("a", 1), ("b", 2))
    )
    assert one.content == two.content != record.content
    assert manifest(shards=shard_list("fetch", [one])).digest == manifest(shards=shard_list("fetch", [two])).digest
    assert manifest(shards=shard_list("fetch", [one])).digest != manifest(shards=shard_list("fetch", [record])).digest
    other = replace(one, files=(replace(one.files[0], counted="another end"),))
    assert manifest(shards=shard_list("fetch", [one])).digest != manifest(shards=shard_list("fetch", [other])).digest
