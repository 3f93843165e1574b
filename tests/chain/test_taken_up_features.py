"""Stored features of an earlier commit, whose shards were the encoded ones, are taken over into the packed shards: none
is computed again, and the tars are the same, byte for byte."""

import os
import shutil

import pytest

from manifests.aside import ASIDE, UNDER_WAY
from manifests.journal import records_of
from manifests.manifest import Manifest
from manifests.verify import verify_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.run import remove_rows
from pipeline.maintenance.remove.selectors import gather
from pipeline.recipes.load import load_recipe
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import without_beam
from tests.support.old_features import COMMIT, make
from tests.support.old_run import has
from tests.support.removals import URL
from tokenize_shards.text import T5Features

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has(COMMIT), reason="this checkout's history lacks the earlier commit (a shallow clone)"),
]
VARIANTS = {
    "alt": ["pretokenize.shard_bytes=45_000"],
    "whole": ["fetch.shard_rows=1000", "pretokenize.shard_rows=1000"],
    "short": ["pretokenize.shard_rows=5", 'pretokenize.t5_caption="llava_short"'],
    "none": ["pretokenize.shard_rows=7", 'pretokenize.t5_caption="top_caption"'],
    "online": ['pretokenize.t5="online"', "pretokenize.shard_bytes=30_000"],
}
TAKEN_UP = ("filter", "pretokenize")
"""Stages that take up what is there; the caption stage, which asks and judges anew, is not run."""
STEPS = {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}


@pytest.fixture(scope="module")
def old(tmp_path_factory, web, tiny_t5):
    """Return (folder of the run folders by name, its recipe, name -> settings)."""
    out = tmp_path_factory.mktemp("old")
    stored = ['pretokenize.t5="precomputed"', f'pretokenize.t5_weights="{tiny_t5}"']
    settings = {name: [*stored, *sets] for name, sets in VARIANTS.items()}
    return out, make(out, web, settings), settings


@pytest.fixture
def computed(monkeypatch):
    """Count the captions that the T5 sees."""
    seen: list[str] = []
    features = T5Features.features

    def counted(self, captions):
        seen.extend(captions)
        return features(self, captions)

    monkeypatch.setattr(T5Features, "features", counted)
    return seen


def go_on(old, name, root, *stages):
    """Run stages over a folder with the settings of this name."""
    recipe = load_recipe(old[1], [*old[2][name], f'output.root="{root}"'])
    with without_beam():
        for stage in stages:
            run_stage(recipe, stage, StageOptions())
    return recipe


def tars(root):
    """Return path -> bytes of every packed shard and its index."""
    names = [file.path for record in records_of(root, "pack") for file in record.files]
    return {name: (root / name).read_bytes() for name in names}


def digest(root):
    return Manifest.read(root / "manifests" / "pretokenize.json").digest


def packed_anew(old, name, root):
    """Copy a run folder without what pretokenize made, and let it make that anew of the captions of before."""
    shutil.copytree(old[0] / name, root)
    shutil.rmtree(root / "codes")
    for path in (root / "manifests").glob("pretokenize.*"):
        path.unlink()
    for step in STEPS["pretokenize"]:
        for path in (root / "manifests").glob(f"*/{step}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    go_on(old, name, root, "pretokenize")


def is_whole(root):
    return not verify_run(root, STEPS).wrong and not (root / ASIDE).exists() and not (root / UNDER_WAY).exists()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_of_before_goes_on_to_the_tars_and_the_digest_of_a_fresh_one(old, tmp_path, computed, capsys, name):
    packed_anew(old, name, tmp_path / "fresh")
    assert len(tars(old[0] / name)) > 6 or name == "whole"
    assert tars(tmp_path / "fresh") == tars(old[0] / name)
    wanted = {"alt": 42, "whole": 42, "short": 21, "none": 0, "online": 0}[name]
    assert len(computed) == wanted
    shutil.copytree(old[0] / name, tmp_path / "run")
    capsys.readouterr()
    go_on(old, name, tmp_path / "run", *TAKEN_UP)
    said = capsys.readouterr().err
    assert len(computed) == wanted  # no more
    assert tars(tmp_path / "run") == tars(old[0] / name)
    assert digest(tmp_path / "run") == digest(tmp_path / "fresh")
    assert is_whole(tmp_path / "run")
    moved = f"t5: {wanted} features lie in" in said and "shards of before" in said
    assert moved == (name in ("alt", "short"))
    go_on(old, name, tmp_path / "run", *TAKEN_UP)
    assert "features lie in" not in capsys.readouterr().err


@pytest.mark.parametrize("stop", range(2, 60, 12))
def test_a_kill_on_the_way_loses_no_feature(old, tmp_path, computed, monkeypatch, stop):
    shutil.copytree(old[0] / "alt", tmp_path / "run")
    real, renames = os.replace, []

    def replace(source, target):
        renames.append(target)
        if len(renames) == stop:
            raise KeyboardInterrupt
        real(source, target)

    for module in ("manifests.files", "manifests.plans"):
        monkeypatch.setattr(f"{module}.os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        go_on(old, "alt", tmp_path / "run", "pretokenize")
    monkeypatch.undo()
    go_on(old, "alt", tmp_path / "run", "pretokenize")
    assert computed == []
    assert tars(tmp_path / "run") == tars(old[0] / "alt")
    assert is_whole(tmp_path / "run")


def test_a_row_that_is_removed_from_a_run_of_before_keeps_its_place(old, tmp_path, computed):
    for name in ("before", "after"):
        root = tmp_path / name
        shutil.copytree(old[0] / "alt", root)
        if name == "after":
            go_on(old, "alt", root, *TAKEN_UP)
        recipe = load_recipe(old[1], [*old[2]["alt"], f'output.root="{root}"'])
        with without_beam():
            remove_rows(root, recipe, Runtime(), gather({"url": [URL.format(5)]}, []))
        go_on(old, "alt", root, *TAKEN_UP)
        assert is_whole(root)
    assert computed == []
    assert tars(tmp_path / "before") == tars(tmp_path / "after")
    assert tars(tmp_path / "before").keys() == tars(old[0] / "alt").keys()
