"""Run folders of an earlier commit, whole or killed half-way, are taken up: same keys, digests and bytes."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.files import read_json
from manifests.journal import records_of
from manifests.manifest import Manifest
from manifests.schema import DIGESTS
from manifests.shards import read_shard
from manifests.verify import verify_run
from manifests.weights import WeightsError
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import gather
from pipeline.recipes.load import load_recipe
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.old_run import COMMIT, REMOVED, has, make
from tests.support.old_run import STAGES as NAMES
from tests.support.removals import holding, uid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has(COMMIT), reason="this checkout's history lacks the earlier commit (a shallow clone)"),
]


@pytest.fixture(scope="module")
def old(tmp_path_factory, web) -> dict[str, Path]:
    """Return name -> run folder made by the earlier commit."""
    return make(tmp_path_factory.mktemp("old"), web)


def go_on(old: dict[str, Path], name: str, folder: Path, *stages: str) -> dict[str, int]:
    """Copy a folder, run these stages over it and return stage -> units made."""
    shutil.copytree(old[name], folder)
    recipe = load_recipe(old[name].parent / "recipe.toml", [f'output.root="{folder}"'])
    with without_beam():
        finished = {stage: run_stage(recipe, stage, StageOptions()) for stage in stages}
    return {stage: one.made for stage, one in finished.items() if one is not None}


def digests(root: Path) -> list[str]:
    return [Manifest.read(root / "manifests" / f"{stage}.json").digest for stage in NAMES]


def steps_keys(root: Path) -> dict[str, list[str]]:
    """Return step -> the keys of its records."""
    return {
        step.name: [record.key for record in records_of(root, step.name)] for steps in STAGES.values() for step in steps
    }


def is_record(name: str) -> bool:
    """Tell whether a file is a record of shards, which are gathered in tables now."""
    stages = {f"manifests/{stage}.{kind}" for stage in NAMES for kind in ("json", "parquet")}
    return name in {"manifests/digests.json", *stages} or name.startswith("manifests/journal/")


def is_whole(root: Path) -> bool:
    stages = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}
    return not verify_run(root, stages).wrong


def test_a_whole_run_is_whole_and_nothing_runs_again(old, tmp_path, capsys):
    """Its captions, which nobody judged, are packed as they are, so that all keys and bytes are the same."""
    assert is_whole(old["whole"])
    tiers = len(list((old["whole"] / "codes").glob("*/00000.tar")))  # each gets its packed index, and nothing else runs
    assert go_on(old, "whole", tmp_path / "run", "filter", "pretokenize") == {"filter": 0, "pretokenize": tiers}
    assert "captions here are of before there was a judge: pretokenize packs them as they" in capsys.readouterr().err
    assert digests(tmp_path / "run")[:-1] == digests(old["whole"])[:-1]
    assert {**steps_keys(tmp_path / "run"), "index": []} == steps_keys(old["whole"])
    assert is_whole(tmp_path / "run")
    notes = [f"manifests/plan/{step}/plan.json" for step in ("encode", "fetch", "pack")]
    others = [
        *notes,
        "manifests/plan/fetch-settings.json",
        "manifests/recipe.json",
        "recipe.toml",
    ]  # what plans are made from is noted; another output.root
    first = [f"ledger/first/0000{n}.parquet" for n in range(6)]  # the plan is made of counts
    first += [f"codes/{path.parent.name}/index.parquet" for path in (old["whole"] / "codes").glob("*/00000.tar")]
    records = [name for name in differing(tmp_path / "run", old["whole"]) if is_record(name)]
    assert differing(tmp_path / "run", old["whole"]) == sorted([*first, *others, *records])
    for note in notes:
        assert read_json(tmp_path / "run" / note)["files"] == read_json(old["whole"] / note)["files"]


def captions_in(root: Path) -> set[str]:
    """Return every text of a captioner in the packed shards."""
    tars = (root / "codes/finetune").glob("*.tar")
    notes = [json.loads(sample["json"]) for tar in tars for _, sample in read_shard(tar)]
    return {one["text"] for note in notes for one in note["captions"] if one["source"].startswith("llava")}


def test_captions_of_before_are_set_aside_and_made_anew_where_the_stage_runs(old, tmp_path, capsys):
    """They were neither measured nor judged, and another question may have been asked: their rows lie aside."""
    root = tmp_path / "run"
    made = go_on(old, "whole", root, "filter", "caption", "pretokenize")
    assert (made["filter"], made["caption"] > 0, made["pretokenize"] > 0) == (0, True, True)
    assert "caption: 21 rows fell out of the plan and are set aside" in capsys.readouterr().err
    assert digests(root)[0] == digests(old["whole"])[0]
    assert not set(digests(root)[1:]) & set(digests(old["whole"]))
    assert "origin" in pq.read_schema(next((root / "captions").glob("*.parquet"))).names
    assert is_whole(root)


def without_digests(root: Path, folder: str) -> list[dict[str, object]]:
    """Return the rows of a folder's tables but for the digests of what was received."""
    tables = [pq.read_table(path).to_pylist() for path in sorted((root / folder).glob("*.parquet"))]
    return [{name: value for name, value in row.items() if name not in DIGESTS} for rows in tables for row in rows]


def test_a_run_killed_in_fetch_goes_on_to_the_same_rows(old, tmp_path):
    """Shards that are fetched now hold digests of what was received, those of before none: all else is the same."""
    before = sum(len(list((old["fetch"] / "manifests/journal" / name).glob("0*.json"))) for name in ("select", "fetch"))
    total = sum(len(keys) for name, keys in steps_keys(old["whole"]).items() if name in ("select", "fetch"))
    assert 0 < before < total
    made = go_on(old, "fetch", tmp_path / "run", *NAMES)  # captions are made and judged by the steps of today
    records = {name: len(keys) for name, keys in steps_keys(old["whole"]).items()}
    assert made["filter"] == sum(records[step.name] for step in STAGES["filter"]) - before
    assert steps_keys(tmp_path / "run")["fetch"] == steps_keys(old["whole"])["fetch"]
    for folder in ("pairs", "ledger/fetch", "scores", "ledger/final"):
        assert without_digests(tmp_path / "run", folder) == without_digests(old["whole"], folder)
    assert is_whole(tmp_path / "run")


@pytest.mark.parametrize("lost", ["pairs/00001.tar", "pairs/00001.parquet", "ledger/fetch/00001.parquet"])
def test_a_shard_of_before_is_repaired_to_its_bytes(old, tmp_path, lost):
    """It holds no digests of what was received, and gets none: its record names its bytes."""
    shutil.copytree(old["whole"], tmp_path / "run")
    (tmp_path / "run" / lost).write_bytes(b"damaged")
    assert mend(tmp_path / "run").left == {}
    assert differing(tmp_path / "run", old["whole"]) == []


def test_a_ledger_of_before_is_made_again_to_its_bytes(old, tmp_path):
    shutil.copytree(old["whole"], tmp_path / "run")
    (tmp_path / "run" / "ledger/final/00000.parquet").write_bytes(b"damaged")
    assert mend(tmp_path / "run").left == {}
    assert differing(tmp_path / "run", old["whole"]) == []


def test_a_damaged_caption_of_before_is_left_and_all_else_repaired(old, tmp_path):
    """Nothing makes it again byte for byte; nothing else waits for that."""
    root = tmp_path / "run"
    shutil.copytree(old["whole"], root)
    (root / "captions/llava-00001.parquet").write_bytes(b"damaged")
    (root / "ledger/final/00000.parquet").write_bytes(b"damaged")
    left = mend(root).left
    assert list(left) == ["captions/llava-00001.parquet"]
    assert "pipeline run --stage caption makes and judges them anew" in left["captions/llava-00001.parquet"]
    assert differing(root, old["whole"]) == ["captions/llava-00001.parquet"]
    recipe = load_recipe(old["whole"].parent / "recipe.toml", [f'output.root="{root}"'])
    with without_beam():
        for stage in ("caption", "pretokenize"):
            run_stage(recipe, stage, StageOptions())
    assert is_whole(root)


def test_a_row_goes_from_captions_of_before_too(old, tmp_path, monkeypatch):
    """What made them is no more, and its weights need not be at hand."""
    root = tmp_path / "run"
    shutil.copytree(old["whole"], root)
    assert any(name.startswith("captions/llava-") for name in holding(root, [uid(5)], []))
    places = ("captions/", "codes/", "pairs/", "manifests/plan/caption/")

    def none(*_):
        raise WeightsError("not at hand")

    monkeypatch.setattr("pipeline.steps.caption.captioner_weights", none)
    with without_beam():
        remove_rows(root, recipe_of_run(root), Runtime(), gather({"url": [REMOVED]}, []))
    assert [name for name in holding(root, [uid(5)], []) if name.startswith(places)] == []
    assert digests(root) == digests(old["removed"])
    assert captions_in(root) < captions_in(old["whole"])
    assert is_whole(root)


def test_a_run_killed_in_encode_goes_on_to_the_same_digest(old, tmp_path):
    before = len(list((old["encode"] / "manifests/journal/encode").glob("*-0*.json")))
    records = {name: len(keys) for name, keys in steps_keys(old["whole"]).items()}
    assert 0 < before < records["encode"]
    made = go_on(old, "encode", tmp_path / "run", "pretokenize")
    tiers = len(list((old["whole"] / "codes").glob("*/00000.tar")))
    assert made["pretokenize"] == sum(records[step.name] for step in STAGES["pretokenize"]) - before + tiers
    assert digests(tmp_path / "run")[:-1] == digests(old["whole"])[:-1]
    assert steps_keys(tmp_path / "run")["pack"] == steps_keys(old["whole"])["pack"]
    assert is_whole(tmp_path / "run")


def test_a_removal_killed_half_way_ends_as_an_undisturbed_one(old, tmp_path):
    assert (old["remove"] / ".removal").exists()
    shutil.copytree(old["remove"], tmp_path / "run")
    recipe = recipe_of_run(tmp_path / "run")
    outcome = remove_rows(tmp_path / "run", recipe, Runtime(), gather({"url": [REMOVED]}, []))
    assert not outcome.rows  # the files that were ready were put in place: the row has its tombstone
    assert digests(tmp_path / "run") == digests(old["removed"])
    assert differing(tmp_path / "run", old["removed"]) == []
    assert is_whole(tmp_path / "run")
