"""pack: shards of the recipe's rows, none larger than its samples count."""

import json
import shutil

import pyarrow as pa
import pytest

from manifests.layout import SCRATCH
from manifests.manifest import Manifest
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.shuffle import here, make_needs
from pipeline.steps import moved, pack_order
from pipeline.steps.pack import Pack, sources
from pipeline.steps.t5 import T5
from tests.support.grouping import as_on_a_cluster, on_beam
from tokenize_shards.packed_index import NAME


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


def packed(root, recipe, do=here, grouped=False):
    """Do t5 and pack anew; return what was left below `.shuffle/` after the order and before packing, and every file of
    the plans, features and packed shards."""
    for name in ("plan/t5", "plan/pack", "journal/t5", "journal/pack"):
        shutil.rmtree(root / "manifests" / name, ignore_errors=True)
    left = []
    for step in (T5(recipe, root), Pack(recipe, root)):
        make_needs(step, do, grouped)
        left.append(scratch(root))
        units = step.units()
        step.bring(units, do, grouped)
        left.append(scratch(root))
        here(step, units)
        step.settle([])
    assert not (root / SCRATCH).exists()
    folders = ("manifests/plan/t5", "manifests/plan/pack", "codes/t5", "codes/pretrain", "codes/finetune")
    files = [path for name in folders for path in sorted((root / name).iterdir()) if path.name != NAME]
    return [left[0], left[3]], {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def scratch(root):
    """Return the folders of slices and how many files are in each."""
    found = sorted((root / SCRATCH).glob("*/*/*.slices"))
    return {path.parent.name: sum(one.parent == path.parent for one in found) for path in found}


@pytest.mark.parametrize(("sample_bytes", "ranges", "tables"), [(500, 1, 1), (9_000_000, 6, 1 << 30)])
def test_beams_grouping_gives_the_bytes_of_one_machine(run, tiny_t5, monkeypatch, sample_bytes, ranges, tables):
    """21 samples in each of two tiers, 5 a shard and 5 shards; whatever the ranges of the packed order and the tables
    that move together."""
    sets = ["shard_rows=5", 't5="precomputed"', f't5_weights="{tiny_t5}"']
    recipe = recipe_of_run(run, sets=[f"pretokenize.{value}" for value in sets])
    monkeypatch.setattr(pack_order, "COUNTED_SHARDS", 1)
    monkeypatch.setattr(moved, "FEW_SHARDS", 0)
    ways, alone = packed(run, recipe)
    assert [list(way) for way in ways] == [["pack_order"], ["moved_codes"]]
    monkeypatch.setattr(pack_order, "SAMPLE_BYTES", sample_bytes)
    monkeypatch.setattr(moved, "UNIT_BYTES", tables)
    with as_on_a_cluster():
        ways, together = packed(run, recipe, on_beam, grouped=True)
    assert ways == [{"pack_ordered": 2 * ranges}, {"packed_rows": 10}]
    assert len(together) == 2 * (10 + 1) + 10 + 2 * 10  # tables and plan.json, features, shards and indexes
    assert together == alone
