"""A manifest's rows add up, its digest is that of its content, and a changed one is not believed."""

import contextlib
import hashlib
import json
import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from manifests.files import write_json
from manifests.journal import ConservationError, FileRecord
from manifests.manifest import Manifest, ManifestError, ShardsError, shards_path
from manifests.shard_table import shard_table
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
    values |= {"shards": shard_table({}), "losses": [], "tiers": {}, "versions": {"python": "3"}}
    return Manifest(**(values | kwargs))


def digest(record):
    return manifest(shards=shard_table({"fetch": [record]})).digest


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
    assert digest(one) == digest(two)
    assert digest(one) != digest(record)
    other = replace(one, files=(replace(one.files[0], counted="another end"),))
    assert digest(one) != digest(other)


def listed(tmp_path, key, **values):
    """Return a manifest of two files, one of which counts as something else."""
    record = finished_shard(tmp_path)
    files = (record.files[0], FileRecord("ledger/fetch/0.parquet", "ab", 7, "cd"))
    return manifest(shards=shard_table({"fetch": [replace(record, files=files)]}), recipe_digest=key, **values)


def test_the_digest_follows_the_written_rule(tmp_path):
    """docs/run-folder.md says it; here it is done with nothing of ours, from what lies in the folder."""
    facts = {"refusals": {"robots.txt": 3}, "scores": {"b": 1.5, "ä": None}}
    made = listed(tmp_path, "r", facts=facts, parent="ef", inputs=[{"name": "x", "bytes": 3}])
    path = made.write(tmp_path)
    whole = json.loads(path.read_text())
    table = path.with_name(whole["shards"]["table"])
    assert hashlib.sha256(table.read_bytes()).hexdigest() == whole["shards"]["sha256"]
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == whole["shards"]["entries"] == 2
    for row in rows:
        if counted := row.pop("counted"):
            row["sha256"] = counted
            del row["bytes"]
    entry = {name: value for name, value in whole.items() if name not in ("digest", "format", "seal", "versions")}
    entry["facts"] = {name: fact for name, fact in facts.items() if name != "refusals"}
    text = json.dumps({**entry, "shards": rows}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == whole["digest"] == made.digest


def test_a_manifest_of_before_holds_the_list_itself(tmp_path):
    made = listed(tmp_path, "r")
    path = made.write(tmp_path)
    whole = json.loads(path.read_text())
    for name in ("seal", "format"):
        del whole[name]
    write_json(path, {**whole, "shards": made.shards.to_pylist()}, sealed=True)
    shards_path(path).unlink()
    assert Manifest.read(path) == made
    Manifest.read(path).write(tmp_path)
    assert Manifest.read(path) == made
    assert shards_path(path).exists()


@pytest.mark.parametrize("step", range(5))
def test_a_kill_while_it_is_written_leaves_one_that_can_be_read(tmp_path, monkeypatch, step):
    old, new = listed(tmp_path, "old"), replace(listed(tmp_path, "new"), shards=shard_table({}))
    path = old.write(tmp_path)
    moves = iter([None] * step)
    real = os.replace

    def killed(source, target):
        if next(moves, "killed") == "killed":
            raise KeyboardInterrupt
        real(source, target)

    for _ in range(2):  # and once more, where the first kill left its table under its first name
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with contextlib.suppress(KeyboardInterrupt):
                new.write(tmp_path)
        assert Manifest.read(path) in (old, new)
    new.write(tmp_path)
    assert Manifest.read(path) == new
    assert [entry.name for entry in sorted(path.parent.iterdir())] == [
        "digests.json",
        "filter.json",
        "filter.parquet",
    ]


def test_a_table_that_the_manifest_does_not_name_is_not_believed(tmp_path):
    path = listed(tmp_path, "r").write(tmp_path)
    data = shards_path(path).read_bytes()
    for other in (data[:-1], b"", bytes([*data[:50], data[50] ^ 1, *data[51:]])):
        shards_path(path).write_bytes(other)
        with pytest.raises(ShardsError, match=r"filter\.parquet: not the table of shards that filter\.json names"):
            Manifest.read(path)
    shards_path(path).unlink()
    with pytest.raises(ShardsError):
        Manifest.read(path)


def test_a_folder_in_the_place_of_the_table_is_named(tmp_path):
    path = listed(tmp_path, "r").write(tmp_path)
    shards_path(path).unlink()
    shards_path(path).mkdir()
    with pytest.raises(ShardsError, match=r"filter\.parquet: a folder, wanted the table of shards"):
        Manifest.read(path)
