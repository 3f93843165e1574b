"""Repair when records and outputs are lost together: every byte comes back, or what cannot be proved is named with what
helps."""

import shutil
from pathlib import Path

import pytest

from manifests.checksums import sha256_file
from manifests.files import read_json, write_json
from manifests.lineage import note_removal
from manifests.manifest import Manifest
from manifests.recipe_file import read_headed
from manifests.shard_table import shard_table
from manifests.tombstones import TOMBSTONES, write_tombstones
from manifests.verify import verify_run
from pipeline.execution.run_folder import COPY, RECIPE, recipe_of_run, write_recipe
from pipeline.maintenance.repair.records import mend_digests, mend_recipe, mend_removals
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.stages.run import StageOptions, run_stage
from tests.support.journals import spread
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.repairs import repair_of
from tests.support.stage_steps import recipe_at

FILTER, CODES = "manifests/filter.json", "manifests/pretokenize.json"
JOURNAL = "manifests/journal"


@pytest.fixture(scope="module")
def made(made, tmp_path_factory):
    """Return the whole run with a JSON a record, as a step under way has them, and folders of before."""
    return spread(shutil.copytree(made, tmp_path_factory.mktemp("spread") / "run"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def spoil(root, *names):
    """Flip a byte of each file; "-NAME" goes, "TO<FROM" becomes a copy of another file."""
    for name in names:
        to, _, source = name.partition("<")
        if source:
            shutil.copyfile(root / source, root / to)
        elif name.startswith("-"):
            (root / name[1:]).unlink()
        else:
            flip(root / name)


def findings(root):
    return {finding.path: finding.kind for finding in verify_run(root, STAGE_STEPS).findings}


@pytest.mark.parametrize(
    "names",
    [
        (f"{JOURNAL}/fetch/step.json<{JOURNAL}/fetch/00000.json",),
        (f"{JOURNAL}/fetch/step.json<{JOURNAL}/score/step.json",),
        (f"{JOURNAL}/fetch/00000.json<{JOURNAL}/score/00000.json",),
        (f"{JOURNAL}/fetch/00000.json<{JOURNAL}/fetch/00001.json",),
        (f"{FILTER}<{CODES}",),
        ("manifests/recipe.json<manifests/digests.json",),
        ("manifests/digests.json<manifests/input.json",),
        ("manifests/plan/encode/plan.json<manifests/plan/fetch/plan.json",),
        ("manifests/plan/encode/plan.json", "manifests/recipe.json", f"{JOURNAL}/pack/step.json"),
        (FILTER, f"-{JOURNAL}/decide/00000.json"),
        (FILTER, f"-{JOURNAL}/score/00002.json", f"-{JOURNAL}/dedup/step.json"),
        (CODES, f"-{JOURNAL}/encode/finetune-00000.json", f"{JOURNAL}/pack/finetune-00000.json"),
        (CODES, "-manifests/plan/pack/plan.json", f"{JOURNAL}/encode/step.json", "codes/finetune/00000.tar"),
    ],
)
def test_what_is_lost_is_named_and_nothing_else_and_comes_back(run, made, names):
    spoil(run, *names)
    lost = set(differing(run, made))
    found = verify_run(run, STAGE_STEPS).findings
    assert {finding.path for finding in found if finding.wrong} == lost
    assert "foreign" not in {finding.kind for finding in found}
    work = mend(run)
    assert (work.left, differing(run, made)) == ({}, [])
    assert set(work.repaired) == lost


def test_a_folder_of_records_that_is_gone_is_missed(run, made):
    shutil.rmtree(run / "manifests" / "plan" / "encode")
    shutil.rmtree(run / "manifests" / "journal" / "t5")
    assert findings(run) == {"manifests/plan/encode/plan.json": "missing", f"{JOURNAL}/t5/step.json": "missing"}
    assert (mend(run).left, differing(run, made)) == ({}, [])


@pytest.mark.parametrize(
    "output",
    ["codes/pretrain/00000.tar", "codes/encoded/pretrain-00001.parquet", "pairs/00001.tar", "scores/00000.parquet"],
)
def test_an_output_whose_records_are_lost_too_is_proved_by_the_digest_of_the_manifest(run, made, output):
    step, shard = {
        "codes/pretrain/00000.tar": ("pack", "pretrain-00000"),
        "codes/encoded/pretrain-00001.parquet": ("encode", "pretrain-00001"),
        "pairs/00001.tar": ("fetch", "00001"),
        "scores/00000.parquet": ("score", "00000"),
    }[output]
    record = f"{JOURNAL}/{step}/{shard}.json"
    manifest = CODES if output.startswith("codes") else FILTER
    spoil(run, record, manifest, output)
    kinds = findings(run)
    assert kinds.pop(output) == "unproved"  # nothing says any more what it was
    assert {name: kind for name, kind in kinds.items() if kind == "damaged"} == {record: "damaged", manifest: "damaged"}
    work = mend(run)
    assert (work.left, differing(run, made)) == ({}, [])
    assert work.repaired[output] == f"{step} made it again, as the digest of {manifest} proves"


def test_what_nothing_proves_is_left_and_the_advice_makes_it_whole(run, made):
    record, output = f"{JOURNAL}/encode/pretrain-00000.json", "codes/encoded/pretrain-00000.parquet"
    spoil(run, record, f"-{CODES}", "-manifests/digests.json", output)
    before = (run / output).read_bytes()
    work = mend(run)
    assert list(work.left) == [record]
    assert work.left[record].endswith(
        f"{output}, made again, is not what the folder holds; pipeline run --stage pretokenize makes it anew"
    )
    assert (run / output).read_bytes() == before
    with without_beam():
        run_stage(recipe_of_run(run), "pretokenize", StageOptions())
    assert mend(run) is None
    others = {name for name in differing(run, made) if not name.startswith(JOURNAL)}  # which is gathered now
    assert others <= {"recipe.toml", "manifests/recipe.json"}  # the copy lies elsewhere


def test_what_is_built_on_a_lost_file_says_so_and_is_not_called_foreign(run, made, web):
    spoil(
        run,
        "manifests/input.json",
        f"{JOURNAL}/select/00000.json",
        f"{JOURNAL}/encode/finetune-00000.json",
        "codes/finetune/00000.tar",
    )
    inputs = Path(recipe_of_run(made).input.files).parent
    for path in inputs.glob("*.parquet"):
        path.rename(path.with_suffix(".away"))
    try:
        work = mend(run)
    finally:
        for path in inputs.glob("*.away"):
            path.rename(path.with_suffix(".parquet"))
    assert "the input cannot be read again" in work.left["manifests/input.json"]
    assert "manifests/input.json" in work.left[f"{JOURNAL}/select/00000.json"]
    assert not any("remove" in why or "recipe" in why for why in work.left.values()), work.left
    assert (mend(run).left, set(differing(run, made)) - {"manifests/input.json"}) == ({}, set())


def test_outputs_of_a_shard_that_is_not_done_are_leftovers(run):
    for name in (FILTER, "manifests/digests.json", f"{JOURNAL}/decide/00000.json", f"{JOURNAL}/fetch/00004.json"):
        (run / name).unlink()
    for name in ("caption", "pretokenize"):
        (run / "manifests" / f"{name}.json").unlink()
    (run / "pairs" / "00077.tar").write_bytes(b"?")
    kinds = findings(run)
    assert kinds.pop("pairs/00077.tar") == "foreign"
    assert set(kinds.values()) == {"leftover"}
    assert "pairs/00004.tar" in kinds


def test_older_notes_that_do_not_say_whose_they_are_are_read(run):
    for name in ("manifests/plan/encode/plan.json", f"{JOURNAL}/encode/step.json"):
        entry = read_json(run / name)
        del entry["step"], entry["format"]
        write_json(run / name, entry, sealed=True)
    assert findings(run) == {}


@pytest.mark.parametrize(("lost", "source"), [(RECIPE, COPY), (COPY, RECIPE)])
def test_each_copy_of_the_recipe_comes_from_the_other(tmp_path, lost, source):
    write_recipe(recipe_at(tmp_path / "run", seed=3))
    before = (tmp_path / "run" / lost).read_bytes()
    (tmp_path / "run" / lost).write_bytes(b"?")
    work = repair_of(tmp_path / "run", lost)
    mend_recipe(work)
    assert (work.repaired, work.left) == ({lost: f"from {source}"}, {})
    assert (tmp_path / "run" / lost).read_bytes() == before
    assert read_headed(tmp_path / "run" / RECIPE)["input"]["seed"] == 3


def test_without_either_copy_the_recipe_is_the_users_to_give(tmp_path):
    write_recipe(recipe_at(tmp_path / "run"))
    work = repair_of(tmp_path / "run", RECIPE, COPY)
    mend_recipe(work)
    says = "it and its copy are lost both: pipeline run, with your recipe, writes them anew"
    assert (work.repaired, work.left) == ({}, {RECIPE: says, COPY: says})


def test_digests_are_listed_again_from_whole_manifests(tmp_path):
    manifest = Manifest("filter", "", [], [], 0, 0, {}, shard_table({}), [], {}, {})
    path = manifest.write(tmp_path / "run")
    (tmp_path / "run" / "manifests" / "caption.json").write_text("{")
    digests = "manifests/digests.json"
    (tmp_path / "run" / digests).write_text("?")
    work = repair_of(tmp_path / "run", digests)
    mend_digests(work)
    assert work.repaired == {digests: "from the manifests"}
    entry = {"digest": manifest.digest, "sha256": sha256_file(path)}
    assert read_json(tmp_path / "run" / digests)["stages"] == {"filter": entry}


RECORD, OF_RECORD, OF_TOMBSTONES = (
    "manifests/removals/0001.json",
    f"{JOURNAL}/remove/0001.json",
    f"{JOURNAL}/remove/tombstones.json",
)


@pytest.fixture
def removal(tmp_path):
    """Return a folder that holds what a removal leaves: tombstones, its record, and the journal's records of both."""
    write_tombstones(tmp_path / "run", [])
    entry = {"stages": {}, "tombstones_sha256": sha256_file(tmp_path / "run" / TOMBSTONES)}
    write_json(tmp_path / "run" / RECORD, entry, sealed=True)
    note_removal(tmp_path / "run", tmp_path / "run" / RECORD)
    return tmp_path / "run"


def test_a_removal_is_journalled_again(removal):
    before = {name: (removal / name).read_bytes() for name in (OF_RECORD, OF_TOMBSTONES)}
    for name in before:
        (removal / name).write_bytes(b"?")
    work = repair_of(removal, *before)
    mend_removals(work)
    assert work.left == {}
    assert work.repaired == {
        OF_RECORD: f"from {RECORD}",
        OF_TOMBSTONES: f"from {TOMBSTONES}, as the last removal's record proves",
    }
    assert {name: (removal / name).read_bytes() for name in before} == before


def test_tombstones_that_no_removal_names_prove_nothing(removal):
    write_json(removal / RECORD, {"stages": {}, "tombstones_sha256": "ab" * 32}, sealed=True)
    work = repair_of(removal, OF_TOMBSTONES)
    mend_removals(work)
    assert work.left == {
        OF_TOMBSTONES: f"nothing proves that {TOMBSTONES} is as it was; restore both from a copy of the run"
    }


def test_what_a_removal_left_comes_from_a_copy_of_the_run_alone(removal):
    work = repair_of(removal, RECORD, TOMBSTONES, OF_RECORD)
    mend_removals(work)
    assert work.repaired == {}
    says = "is noted nowhere else: restore it from a copy of the run"
    assert work.left == {RECORD: f"what the removal changed {says}", TOMBSTONES: f"what was removed {says}"}
