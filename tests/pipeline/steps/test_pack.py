"""pack: shards of the recipe's rows, none larger than its samples count."""

import json

import pyarrow as pa

from manifests.manifest import Manifest
from pipeline.execution.run_folder import recipe_of_run
from pipeline.steps.pack import Pack, sources


def test_no_shard_is_larger_than_its_samples_count(made):
    step = Pack(recipe_of_run(made), made)
    tar = made / "codes" / "pretrain" / "00000.tar"
    index = json.loads(tar.with_suffix(".index.json").read_text())
    uids = sorted({bytes.fromhex(name.partition(".")[0]) for name, *_ in index["members"]})
    sizes = step.packed_bytes(uids)
    assert (len(uids), set(sizes)) == (12, set(uids))
    assert tar.stat().st_size <= sum(tiers["pretrain"] for tiers in sizes.values())


def test_samples_that_are_not_packed_have_no_size(made):
    assert Pack(recipe_of_run(made), made).packed_bytes([b"\0" * 16]) == {}


def test_units_are_shards_of_the_recipes_rows_and_descend_from_filter(made):
    step = Pack(recipe_of_run(made), made)
    assert step.parent == Manifest.read(made / "manifests" / "filter.json").digest
    names = [unit.name for unit in step.units()]
    assert names == ["pretrain-00000", "pretrain-00001", "finetune-00000", "finetune-00001"]  # 21 and some, 12 a shard


def test_sources_leave_out_places_of_removed_samples():
    assert sources(pa.table({"encoded": ["t-1", None, "t-0", "t-1"]})) == ["t-0", "t-1"]
