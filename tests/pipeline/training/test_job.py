"""A training run is put together: what cannot work is refused, and what was trained before is gone on with or set
aside."""

from dataclasses import replace

import pytest
import torch

from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.train import TrainConfig
from pipeline.training.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from pipeline.training.distributed import Machine
from pipeline.training.job import FREE_TO_CHANGE, differences, last_step, prepare
from tests.support.code_shards import GRID, tokenizer, write_codes, write_recipe
from tokenize_shards.samples import LoaderError, data_digest, find_shards

CPU = torch.device("cpu")
HERE = Machine(0, 1, CPU)


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """A recipe whose run folder has twelve pictures in two shards, and which no test changes."""
    folder = tmp_path_factory.mktemp("codes")
    write_codes(folder / "run")
    return write_recipe(folder)


@pytest.fixture
def recipe(tmp_path):
    """The same, to be trained in."""
    write_codes(tmp_path / "run")
    return write_recipe(tmp_path)


def job_of(recipe, *sets, machine=HERE):
    return prepare(load_recipe(recipe, [f"train.{each}" for each in sets]), machine)


def trained(job, step):
    """Save a checkpoint as if a job had taken so many steps, its weights moved by as much."""
    with torch.no_grad():
        for parameter in job.gpt.parameters():
            parameter += step
    return save_checkpoint(job.folder / "checkpoints", job.trained, {**job.facts, "step": step}, keep=3)


def test_a_new_job_has_all_it_needs(codes):
    job = job_of(codes, "steps=5", "optimizer=muon", "lr=0.004")
    assert (job.step, job.last) == (0, 5)
    assert job.folder == job.root / "train" / "pretrain"
    assert job.tokenizer == tokenizer()
    assert job.vq == ("VQ-demo", "stand-in")
    assert (job.gpt.spec.vocab, job.gpt.spec.grid, job.gpt.spec.cond_len) == (512, GRID, 8)
    assert job.model is job.gpt
    assert [type(optimizer).__name__ for optimizer in job.optimizers] == ["AdamW", "CPUMuon"]
    shards = find_shards(job.root / "codes", "pretrain")
    assert job.facts["data"] == {"digest": data_digest(shards), "parent": "parent", "shards": 2, "samples": 12}
    assert (job.facts["text"], job.facts["world"], job.facts["train"]["lr"]) == ("hashed words", 1, 0.004)
    assert not job.folder.exists()


def test_the_seed_makes_the_weights(codes):
    first, again, other = (job_of(codes, f"seed={seed}").gpt.tok_embeddings.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_layers_compute_in_bfloat16_where_asked_and_on_gpus(codes):
    job = job_of(codes)
    for device, expected in (("cpu", (False, True, False)), ("cuda", (True, True, False))):
        for precision, is_bf16 in zip(("auto", "bf16", "fp32"), expected, strict=True):
            config = job.config.model_copy(update={"precision": precision})
            assert replace(job, machine=Machine(0, 1, torch.device(device)), config=config).bf16 is is_bf16


@pytest.mark.parametrize(
    ("sets", "machine", "error", "says"),
    [
        (["tier=best"], HERE, RecipeError, "no tier 'best' in the recipe; its tiers are pretrain, finetune"),
        (["batch=4"], Machine(0, 3, CPU), RecipeError, "4 pictures cannot be shared evenly by 3 processes"),
        (["condition=class"], HERE, LoaderError, r"no label; train\.condition = 'class' wants one from 0"),
        (["validation=0.999999"], HERE, LoaderError, "of 12 no sample is left to read: look at train.where"),
    ],
)
def test_what_cannot_work_is_refused(codes, sets, machine, error, says):
    with pytest.raises(error, match=says):
        job_of(codes, *sets, machine=machine)


def test_each_process_reads_its_share_of_a_step(codes, monkeypatch):
    monkeypatch.setattr("pipeline.training.job.wrapped", lambda model, machine, compiled: model)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, _: tensor.fill_(-1))
    alone, *shares = (
        job_of(codes, machine=machine).pictures.step(0).uids_B
        for machine in (HERE, Machine(0, 2, CPU), Machine(1, 2, CPU))
    )
    assert [len(share) for share in shares] == [2, 2]
    assert shares[0] + shares[1] == alone


def test_the_last_step_is_of_steps_or_of_passes_whichever_comes_first(codes):
    for given, expected in (
        ({"batch": 4, "epochs": 2}, 6),  # 2 x 12 / 4
        ({"batch": 5, "epochs": 1}, 3),  # 12 / 5 = 2.4
        ({"batch": 4, "epochs": 2, "steps": 5}, 5),
        ({"batch": 4, "epochs": 2, "steps": 7}, 6),
    ):
        assert last_step(TrainConfig(**given), 12) == expected
    assert job_of(codes, "max_pictures=5", "epochs=2").last == 3  # 2 x 5 / 4 = 2.5


def test_the_validation_split_is_of_the_uid_alone_and_never_trained_on(codes):
    jobs = [job_of(codes, "validation=0.4", f"seed={seed}", "batch=1") for seed in (0, 1)]
    trained_on = [set(job.pictures.batch(0, job.pictures.samples).uids_B) for job in jobs]
    assert trained_on[0] == trained_on[1]
    assert 0 < len(trained_on[0]) < 12


def test_a_job_goes_on_from_its_newest_checkpoint(recipe, capsys):
    trained(job_of(recipe), 3)
    folder = trained(job_of(recipe), 4)
    job = job_of(recipe, "steps=6", "log_every=1")  # longer and louder is no other recipe
    assert (job.step, job.last) == (4, 6)
    assert f"going on from step 4 ({folder})" in capsys.readouterr().out
    assert torch.equal(job.gpt.norm.weight, torch.full((192,), 1.0 + 3 + 4))


def test_other_codes_or_recipe_are_refused_set_aside_or_gone_on_with(recipe, capsys):
    trained(job_of(recipe), 4)
    with pytest.raises(RecipeError, match=r"was trained with other train\.lr \(0\.003, now 0\.001\)\. Set it aside"):
        job_of(recipe, "lr=0.001")
    write_codes(recipe.parent / "run", (5, 6))
    with pytest.raises(RecipeError, match="was trained with other codes"):
        job_of(recipe)
    job = job_of(recipe, "on_change=continue")
    assert job.step == 4
    assert "was trained with other codes: going on from it, as train.on_change says" in capsys.readouterr().out
    trained(job, 8)
    job = job_of(recipe, "on_change=restart", "lr=0.001")
    assert job.step == 0
    assert latest_checkpoint(job.folder / "checkpoints") is None
    assert latest_checkpoint(job.folder.with_name("pretrain.old-1") / "checkpoints").step == 8
    trained(job, 4)
    assert job_of(recipe, "on_change=restart", "lr=0.002").step == 0
    assert latest_checkpoint(job.folder.with_name("pretrain.old-2") / "checkpoints").step == 4


def test_the_next_tier_starts_from_the_last_ones_weights(recipe, capsys):
    first = job_of(recipe)
    start = trained(first, 4).parent
    write_codes(recipe.parent / "run", (4,), "finetune")
    job = job_of(recipe, "tier=finetune", f"init_from={start}")
    assert job.step == 0
    assert "starting from the weights in" in capsys.readouterr().out
    for name, tensor in first.gpt.state_dict().items():
        assert torch.equal(job.gpt.state_dict()[name], tensor)


def test_differences_are_said_in_words(codes):
    facts = job_of(codes).facts
    before = Checkpoint(codes, facts)
    assert differences(before, facts) == []
    other = {
        **facts,
        "tokenizer": {},
        "text": "T5",
        "data": {"digest": "other"},
        "train": {**facts["train"], "seed": 1},
    }
    assert differences(before, other) == ["codes", "tokenizer", "text features", "train.seed (0, now 1)"]


def test_a_key_from_after_the_checkpoint_had_its_default(codes):
    facts = job_of(codes).facts
    older = {key: value for key, value in facts["train"].items() if key not in ("condition", "classes")}
    now = {**facts, "train": {**facts["train"], "condition": "class", "classes": 3}}
    before = Checkpoint(codes, {**facts, "train": older})
    assert differences(before, now) == ["train.classes (1000, now 3)", "train.condition ('text', now 'class')"]
    assert differences(before, facts) == []


def test_steps_may_grow_but_not_under_a_cooldown(codes):
    facts = job_of(codes, "steps=10", "cooldown=0.2").facts
    more = {**facts, "train": {**facts["train"], "steps": 20}}
    assert differences(Checkpoint(codes, facts), more) == ["train.steps (10, now 20)"]
    constant = {**more, "train": {**more["train"], "cooldown": 0.0}}
    assert differences(Checkpoint(codes, constant), {**constant, "train": {**constant["train"], "steps": 30}}) == []


def test_what_may_change_half_way_is_a_key_of_the_recipe_and_says_nothing_of_what_is_learned():
    assert set(TrainConfig.model_fields) >= FREE_TO_CHANGE
    learned = {"model", "tier", "lr", "muon_lr", "batch", "seed", "optimizer", "captions", "corruption", "cooldown"}
    assert not FREE_TO_CHANGE & learned
