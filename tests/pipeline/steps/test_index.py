"""index: one table a tier, of its shards as they are: made again where they change, taken out of with them, and added
to runs of before."""

import shutil
from dataclasses import replace

import pytest

from manifests.journal import Journal, records_of
from manifests.layout import ADDED
from manifests.manifest import Manifest
from manifests.shards import ShardReader
from manifests.verify import verify_run
from pipeline.execution.redact_later import OUTDATED, redact_later
from pipeline.execution.redaction import RemovedRows
from pipeline.execution.run_folder import recipe_of_run
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.stages.registry import STAGES
from pipeline.steps.index import IndexStep
from pipeline.steps.pack import Pack
from tests.support.keep_runs import differing, make_run, mend
from tests.support.removals import URL, digests, remove, rerun, uid, whole
from tokenize_shards.packed_index import NAME, PackedIndex, open_packed_index
from tokenize_shards.samples import data_digest, find_shards

TIERS = ("finetune", "pretrain")


def uids_in(root, tier):
    index = open_packed_index(root / "codes" / tier)
    return [[bytes(uid_N2[row].astype(">u8")) for row in range(len(uid_N2))] for _, uid_N2 in index.uids()]


def in_data(root, other):
    """Return the files that two runs do not have alike, but records and the recipe, which says where a run lies."""
    return {name for name in differing(root, other) if not name.startswith(("manifests/", "recipe."))}


def step_of(root):
    return IndexStep(recipe_of_run(root), root)


@pytest.fixture(scope="module")
def before(tmp_path_factory, web):
    """Return a run that pretokenize ended before it had this step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGES, "pretokenize", STAGES["pretokenize"][:-1])
        return make_run(tmp_path_factory.mktemp("before"), web)


def test_a_tier_has_one_that_names_its_shards_and_every_sample(made):
    assert [unit.name for unit in step_of(made).units()] == [f"{tier}-00000" for tier in TIERS]
    facts = Manifest.read(made / "manifests" / "pretokenize.json").facts["data"]
    for tier in TIERS:
        index, shards = PackedIndex(made / "codes" / tier / NAME), find_shards(made / "codes", tier)
        assert [(one.path.name, one.samples, one.bytes, one.sha256) for one in index.shards] == [
            (one.path.name, one.samples, one.bytes, one.sha256) for one in shards
        ]
        digest = data_digest(shards)
        assert facts[tier] == {"shards": len(shards), "samples": index.samples, "digest": digest}
        assert index.digest == digest
        for shard, uids in zip(shards, uids_in(made, tier), strict=True):
            with ShardReader(shard.path) as reader:
                assert [one.hex() for one in uids] == reader.keys


def test_it_says_where_samples_of_the_stage_are_and_adds_none(made):
    manifest = Manifest.read(made / "manifests" / "pretokenize.json")
    packed, own = (records_of(made, step) for step in ("pack", "index"))
    assert [record.rows_out for record in own] == [
        sum(record.rows_out for record in packed if record.shard.startswith(tier)) for tier in TIERS
    ]
    assert manifest.kept == sum(manifest.tiers.values()) == sum(record.rows_out for record in packed)


def test_its_key_is_that_of_the_packed_shards(run):
    before = {unit.name: unit.key for unit in step_of(run).units()}
    record = Journal(run, "pack").get("pretrain-00001")
    changed = tuple(replace(file, sha256="0" * 64) for file in record.files)
    Journal(run, "pack").record(replace(record, files=changed))
    after = {unit.name: unit.key for unit in step_of(run).units()}
    assert [name for name in before if before[name] != after[name]] == ["pretrain-00000"]


def test_a_run_of_before_is_whole_and_gets_it_alone(before, made, tmp_path, capsys):
    assert ADDED["pretokenize"] == ("index",)
    assert not list(before.rglob(NAME))
    assert verify_run(before, STAGE_STEPS).findings == ()
    assert open_packed_index(before / "codes" / "pretrain").is_own
    root = tmp_path / "run"
    shutil.copytree(before, root)
    rerun(root, "pretokenize")
    assert "pretokenize: index new; runs again: index" in capsys.readouterr().err
    assert verify_run(root, STAGE_STEPS).findings == ()
    assert in_data(root, before) == {f"codes/{tier}/{NAME}" for tier in TIERS}
    for tier in TIERS:
        path = f"codes/{tier}/{NAME}"
        assert (root / path).read_bytes() == (made / path).read_bytes()


def test_of_a_run_of_before_rows_are_removed_as_before(before, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(before, root)
    remove(root, url=URL.format(5))
    assert whole(root) == []
    old, new = (Manifest.read(one / "manifests" / "pretokenize.json") for one in (before, root))
    assert (new.kept, new.tiers["pretrain"]) == (old.kept - 2, old.tiers["pretrain"] - 1)
    assert not list(root.rglob(NAME))


def test_what_is_removed_leaves_it_with_the_shards(removed, made):
    for tier in TIERS:
        (was, now) = ({one for shard in uids_in(root, tier) for one in shard} for root in (made, removed))
        assert was - now == {uid(5)}
        index = PackedIndex(removed / "codes" / tier / NAME)
        assert index.digest == data_digest(find_shards(removed / "codes", tier))
    keys = {unit.name: unit.key for unit in step_of(removed).units()}
    assert {record.shard: record.key for record in records_of(removed, "index")} == keys  # nothing to do for a rerun


def test_rows_that_fetch_lets_go_leave_it_as_they_leave_the_shards(run):
    recipe = recipe_of_run(run)
    redact_later([Pack(recipe, run), step_of(run)], RemovedRows(frozenset([uid(5)])))
    for tier in TIERS:
        assert PackedIndex(run / "codes" / tier / NAME).digest == data_digest(find_shards(run / "codes", tier))
        assert uid(5) not in {one for shard in uids_in(run, tier) for one in shard}
    assert {record.key for record in records_of(run, "index")} == {OUTDATED}  # made anew by the next run


def test_one_without_the_rows_stays_as_it_is(run):
    record = records_of(run, "index")[1]
    path = run / record.files[0].path
    facts = path.stat().st_ino
    assert step_of(run).redact(record, RemovedRows(frozenset([bytes(16)]))) is record
    assert path.stat().st_ino == facts


def test_a_lost_or_damaged_one_is_made_again_byte_for_byte(run, made):
    (run / "codes" / "finetune" / NAME).unlink()
    path = run / "codes" / "pretrain" / NAME
    path.write_bytes(path.read_bytes()[:-9])
    work = mend(run)
    assert (set(work.repaired), work.left) == ({f"codes/{tier}/{NAME}" for tier in TIERS}, {})
    assert differing(run, made) == []


def test_a_kill_between_the_file_and_its_record_leaves_what_the_next_run_takes_up(run, made):
    Journal(run, "index").forget(["pretrain-00000"])
    (run / "manifests" / "pretokenize.json").unlink()
    found = {finding.path: finding.kind for finding in verify_run(run, STAGE_STEPS).findings}
    assert found[f"codes/pretrain/{NAME}"] in ("leftover", "unproved")
    rerun(run, "pretokenize")
    assert verify_run(run, STAGE_STEPS).findings == ()
    assert in_data(run, made) == set()
    assert digests(run) == digests(made)
