"""What a run reads: a tier or a blend, some held out or chosen, captions joined; what cannot be read is refused."""

import pyarrow as pa
import pytest
import torch

from manifests.files import write_table
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.training import data as data_module
from pipeline.training.data import open_data
from pipeline.training.distributed import Machine
from tests.support.code_shards import row_of, write_codes, write_recipe
from tokenize_shards.samples import LoaderError, data_digest, find_shards

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A run with forty pictures in two tiers' shards, and another run."""
    folder = tmp_path_factory.mktemp("runs")
    write_codes(folder / "run", (25, 15))
    write_codes(folder / "run", (8,), tier="finetune")
    write_codes(folder / "other", (10, 10))
    return write_recipe(folder)


def opened(recipe, *sets, machine=Machine(0, 1, CPU)):  # noqa: B008  # frozen
    loaded = load_recipe(recipe, [f"train.{each}" for each in sets])
    config = loaded.train.model_copy(update={"captions": loaded.train.captions or {"alt": 1.0}})
    return open_data(loaded, machine, config)


def uids(loader):
    return loader.batch(0, loader.samples).uids_B


def test_one_tier_is_read_whole_and_its_digest_is_that_of_its_shards(recipe):
    data = opened(recipe)
    assert sorted(uids(data.pictures)) == [f"{n:032x}" for n in range(40)]
    shards = find_shards(recipe.parent / "run" / "codes", "pretrain")
    assert data.facts == {"digest": data_digest(shards), "parent": "parent", "shards": 2, "samples": 40}
    assert data.held_out is None


def test_what_is_held_out_is_not_trained_on(recipe):
    data = opened(recipe, "validation=0.3", "validation_pictures=5")
    held, trained = uids(data.held_out.loader), uids(data.pictures)
    assert not set(held) & set(trained)
    assert len(held) + len(trained) == 40
    assert data.held_out.pictures == 5
    few = opened(recipe, "validation=0.3", "max_pictures=6")
    assert set(uids(few.pictures)) < set(trained)
    assert len(uids(few.pictures)) == 6


def test_blends_by_epochs_and_by_weight(recipe):
    epochs = '[{tier="pretrain", epochs=1}, {tier="finetune", epochs=3}]'
    data = opened(recipe, f"blend={epochs}")
    assert data.pictures.samples == 40 + 3 * 8
    assert data.facts["samples"] == 48
    other = (recipe.parent / "other").as_posix()
    weights = f'[{{weight=1}}, {{run="{other}", weight=3}}]'
    both = opened(recipe, f"blend={weights}", "validation=0.2")
    assert both.facts["digest"] != data.facts["digest"]
    of = both.pictures.blend.run(0, 4096).set_B.tolist()
    assert of.count(1) == pytest.approx(3072, abs=1)
    assert both.held_out.loader.samples + both.pictures.samples == 60


def test_joined_captions_and_a_condition(recipe):
    run = recipe.parent / "run"
    columns = {"uid": pa.array([row_of(n)["uid"] for n in range(40)], pa.binary(16))}
    write_table(recipe.parent / "qwen.parquet", pa.table({**columns, "qwen": [f"qwen {n}" for n in range(40)]}))
    ledger = {**columns, "fate": ["kept"] * 40, "aesthetic": [float(n) for n in range(40)]}
    write_table(run / "ledger" / "final" / "00000.parquet", pa.table(ledger))
    joined = f'join=["{(recipe.parent / "qwen.parquet").as_posix()}"]'
    data = opened(recipe, joined, "where='aesthetic >= 30'", "captions={qwen=1.0}")
    assert sorted(data.pictures.batch(0, 10).captions_B) == sorted(f"qwen {n}" for n in range(30, 40))
    assert data.pictures.samples == 10
    assert data.facts["digest"] != opened(recipe).facts["digest"]
    with pytest.raises(LoaderError, match="no sample has a caption from 'lava'"):
        opened(recipe, joined, "captions={qwen=0.5, lava=0.5}")


REFUSALS = [
    (["batch=4"], Machine(0, 3, CPU), RecipeError, "4 pictures cannot be shared evenly by 3 processes"),
    (["blend=[{weight=1}]", "max_pictures=4"], None, RecipeError, "max_pictures caps one set of codes"),
    (["blend=[{tier='best', weight=1}]"], None, LoaderError, "tier 'best' has no codes"),
    (["blend=[{weight=1}, {epochs=2}]"], None, RecipeError, "each set needs a weight, or each needs epochs"),
    (["blend=[{weight=1, epochs=2}]"], None, RecipeError, "each set needs a weight, or each needs epochs"),
    (["validation=0.999999"], None, LoaderError, "of 40 no sample is left to read: look at train.where"),
    (["join=['nowhere.parquet']"], None, RecipeError, "no table at 'nowhere.parquet'"),
]


@pytest.mark.parametrize(("sets", "machine", "error", "says"), REFUSALS)
def test_what_cannot_be_read_is_refused(recipe, sets, machine, error, says):
    with pytest.raises(error, match=says):
        opened(recipe, *sets, machine=machine or Machine(0, 1, CPU))


def test_too_many_pictures_to_compare_with_are_refused(recipe, monkeypatch):
    monkeypatch.setattr(data_module, "RECALLED", 39)
    with pytest.raises(RecipeError, match=r"40 pictures are too many to compare with, wanted 39 at most"):
        opened(recipe, "recall_pictures=4")
    assert opened(recipe, "recall_pictures=4", "max_pictures=5").pictures.samples == 5
