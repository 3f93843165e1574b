"""Class-conditional training on codes that were imported from ImageNet's folders."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manifests.shards import write_shard
from pipeline.gpt import build_gpt
from pipeline.llamagen.ingest import import_llamagen
from pipeline.recipes.load import load_recipe
from pipeline.sample import Sampling, generate
from pipeline.train import main
from pipeline.training.checkpoint import latest_checkpoint
from pipeline.training.distributed import Machine
from pipeline.training.job import prepare
from pipeline.training.sample_sheets import prompts
from tests.support.code_shards import CODEBOOK, row_of, tokenizer, write_codes, write_recipe
from tests.support.imagenet import N, imagenet
from tokenize_shards.samples import UNKNOWN, find_shards, read_samples, sample_parts

pytestmark = pytest.mark.usefixtures("one_thread", "small_demo")

CODE_OF = (7, 300, 511)
CLASSES = ("train.condition=class", "train.classes=3")


@pytest.fixture
def recipe(tmp_path):
    """Twelve pictures of three classes, imported; those of a class hold one code of its own at every place."""
    asked = imagenet(
        tmp_path / "from", 12, to=tmp_path / "run", tier="pretrain", fingerprint=tokenizer().fingerprint, stand_in=True
    )
    for number in range(12):
        np.save(asked.codes / f"{number}.npy", np.full((1, N), CODE_OF[number % 3]))
    import_llamagen(asked)
    return write_recipe(tmp_path)


def train(recipe, *sets):
    return main(["--recipe", str(recipe), *(word for setting in sets for word in ("--set", setting))])


def test_imported_classes_train_and_draw(recipe, capsys):
    sets = ["train.steps=30", "train.sample_every=30", 'train.sample_prompts=["2","0"]']
    assert train(recipe, *CLASSES, *sets, *(f"train.{kind}_dropout=0" for kind in ("token", "resid", "ffn"))) == 0
    said = capsys.readouterr().out
    assert "12 pictures of tier 'pretrain'" in said
    assert "8x8, 3 classes; 30 steps" in said
    folder = recipe.parent / "run" / "train" / "pretrain"
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] > 5 > 2 > losses[-1]  # ln 512 is 6.2
    assert (folder / "samples" / "0000030.png").is_file()
    found = latest_checkpoint(folder / "checkpoints")
    assert found.state["text"] == "class labels"
    tensors = load_file(found.folder / "model.safetensors")
    assert tensors["cls_embedding.embedding_table.weight"].shape == (4, 96)  # the last row is no class
    gpt = build_gpt("GPT-demo", "class", 8, vocab=CODEBOOK, classes=3)
    gpt.load_state_dict(tensors)
    drawn = generate(gpt, torch.arange(3), 64, Sampling(cfg_scale=1.0))
    assert drawn.tolist() == [[code] * N for code in CODE_OF]  # each class gives its own codes


def test_a_picture_is_trained_with_its_own_class(recipe):
    job = prepare(load_recipe(recipe, [*CLASSES]), Machine(0, 1, torch.device("cpu")))
    batch = job.pictures.batch(0, job.pictures.samples)
    labels = {
        sample.uid: sample.label
        for shard in find_shards(job.root / "codes", "pretrain")
        for sample in read_samples(shard)
    }
    assert batch.captions_B == [str(labels[uid]) for uid in batch.uids_B]
    assert job.condition.of(batch.captions_B).tolist() == [labels[uid] for uid in batch.uids_B]
    assert prompts(job) == batch.captions_B[:8]
    assert job.gpt.spec.cond_dropout == 0.1
    assert set(labels.values()) == {0, 1, 2}


REFUSALS = [
    ([], "have labels and no captions: set train.condition = 'class'"),
    (["train.condition=class", "train.classes=1", "train.steps=3"], "wants one from 0 to train.classes - 1, 0"),
    ([*CLASSES, "train.recall_pictures=4"], "recall_pictures draws captions"),
    ([*CLASSES, 'train.sample_prompts=["3"]'], "'3' is no class; with condition = 'class' wanted numbers from 0 to 2"),
    (["train.condition=label"], "train.condition"),
]


@pytest.mark.parametrize(("sets", "says"), REFUSALS)
def test_what_does_not_fit_classes_is_refused(recipe, sets, says, capsys):
    assert train(recipe, "train.memory_bytes=0", *sets) in (1, 2)
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_captions_do_not_train_as_classes(tmp_path, capsys):
    write_codes(tmp_path / "run")
    assert train(write_recipe(tmp_path), *CLASSES) == 2
    assert "has no label; train.condition = 'class' wants one from 0" in capsys.readouterr().err


def test_codes_of_an_unknown_tokenizer_are_refused_where_the_recipe_names_one(tmp_path, capsys):
    import_llamagen(imagenet(tmp_path / "from", to=tmp_path / "run", tier="pretrain", fingerprint=UNKNOWN))
    assert train(write_recipe(tmp_path), *CLASSES) == 2
    assert "import them again with --weights stand-in" in capsys.readouterr().err


def test_stored_features_of_another_width_are_refused(tmp_path, capsys):
    """They ended in a traceback."""
    rows = []
    for number in range(4):
        numbers = np.ones((2, 16), np.float16)
        row = {**row_of(number), "t5": {"numbers": numbers, "note": {"source": "alt", "dtype": "fp16"}}}
        rows.append((row["uid"].hex(), sample_parts(row, "pretrain", tokenizer(), "parent")))
    write_shard(tmp_path / "run" / "codes" / "pretrain" / "00000.tar", rows, index=True)
    assert train(write_recipe(tmp_path)) == 2
    assert "16 wide" in capsys.readouterr().err
