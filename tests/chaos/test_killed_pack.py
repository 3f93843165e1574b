"""A run whose folder lies in an object store is killed between any two operations of pack: the same digest."""

import pytest

from manifests.manifest import Manifest
from manifests.store import path_of
from pipeline.recipes.load import load_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.dying_runs import Killed, dying, kept, restored
from tests.support.keep_runs import without_beam
from tests.support.small_web import write_input, write_recipe

pytestmark = pytest.mark.slow
ROOT = "memory://killed/run"


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return (recipe, what lies in the store before pack, digest of a pretokenize that nobody killed)."""
    folder = tmp_path_factory.mktemp("store")
    recipe = write_recipe(folder / "recipe.toml", web, write_input(folder / "in"), path_of(ROOT))
    for stage in ("filter", "caption"):
        run(recipe, stage)
    run(recipe, "pretokenize", "encode")
    before = kept()
    run(recipe, "pretokenize")
    return recipe, before, digest()


def run(recipe, stage, *steps):
    with without_beam():
        run_stage(load_recipe(recipe), stage, StageOptions(steps=steps))


def digest():
    return Manifest.read(path_of(ROOT) / "manifests" / "pretokenize.json").digest


def names():
    """Return the names of all objects but the lease, which counts up."""
    return {name for name in kept() if "/.lease/" not in name}


def test_pack_is_killed_before_each_of_its_operations(place):
    recipe, before, wanted = place
    restored(before)
    with dying() as counting:
        run(recipe, "pretokenize")
    assert digest() == wanted
    calm = names()
    assert counting.done > 20
    for at in range(counting.done):
        restored(before)
        with dying(at), pytest.raises(Killed):
            run(recipe, "pretokenize")
        run(recipe, "pretokenize")
        assert digest() == wanted, at
        assert names() == calm, at
