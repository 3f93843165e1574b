"""Put together what a training run needs, and refuse before the first step what cannot work."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manifests.weights import WeightsError
from pipeline.gpt import GPT, build_gpt
from pipeline.gpt_spec import GPTOptions, gpt_spec
from pipeline.loading.loader import Loader
from pipeline.recipes.captions import untrained_captions, weights_of_captions
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.train import TrainConfig
from pipeline.training.budget import Plan, hours, plan_of
from pipeline.training.checkpoint import (
    Checkpoint,
    agreed_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    set_aside,
    sweep_checkpoints,
)
from pipeline.training.conditions import Conditioner, conditioner
from pipeline.training.data import Data, open_data
from pipeline.training.distributed import Machine, wrapped
from pipeline.training.ema import Average
from pipeline.training.feeder import Feeder
from pipeline.training.init_from import start_from, weights_to_start_from
from pipeline.training.metrics import Metrics
from pipeline.training.optim import make_optimizers
from pipeline.training.optimizer_states import Trained
from pipeline.training.safety import Watch
from pipeline.training.saving import Saver
from pipeline.training.sharding import Placement, placed, whole_gpt
from pipeline.training.stored_text import check_stored_text
from pipeline.training.validation import HeldOut
from pipeline.training.weights import GPTFacts, Weights
from tokenize_shards.catalog import vq_spec
from tokenize_shards.samples import (
    UNKNOWN,
    CodeSample,
    LoaderError,
    Tokenizer,
)
from tokenize_shards.vq import load_vq

FREE_TO_CHANGE = {
    *("epochs", "seconds", "micro_batch", "precision", "threads", "compile", "verify", "on_change"),
    *("init_from", "init_ema"),
    *("log_every", "checkpoint_every", "keep_checkpoints", "sample_every", "sample_prompts", "recall_pictures"),
    *("sample_cfg_scale", "sample_top_k", "sample_temperature", "sample_top_p"),
    *("parallel", "activation_checkpointing", "prefetch", "memory_bytes", "tensorboard", "wandb", "ema"),
    *("validate_every", "validation_pictures", "max_skipped"),
}
"""Keys of [train] that a run may change half-way: they say how long, where and how loudly, not what is learned."""


@dataclass
class Job:
    """One training run: what it reads, what it trains, where it writes, and how far it is."""

    config: TrainConfig
    machine: Machine
    folder: Path  # RUN/train/TIER
    root: Path  # RUN
    metrics: Metrics
    saver: Saver
    tokenizer: Tokenizer
    vq: tuple[str, str]  # architecture and weights, to see samples
    pictures: Loader
    condition: Conditioner
    gpt: GPT
    model: nn.Module  # gpt, or what DDP and torch.compile made of it
    optimizers: list[torch.optim.Optimizer]
    facts: dict[str, Any]  # goes into every checkpoint's state.json
    watch: Watch
    average: Average | None = None
    held_out: HeldOut | None = None
    due: bool = False  # a checkpoint waits for a step that is applied
    step: int = 0  # finished steps
    last: int = 0  # steps in all

    @property
    def bf16(self) -> bool:
        """Tell whether the layers compute in bfloat16."""
        return in_bf16(self.config, self.machine)

    @property
    def trained(self) -> Trained:
        """Return what a step changes."""
        return Trained(self.gpt, self.optimizers, self.average.tensors if self.average else None)

    @property
    def feeder(self) -> Feeder:
        """Return what puts batches on the device."""
        return Feeder(self.condition, self.machine.device, self.config.micro_batch)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Let the model have the running average for weights while the block runs, where there is one."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def drawing(self) -> GPT | None:
        """Return the GPT that draws, on the leading process, else None: the running average where there is one, in
        bfloat16 on a GPU. Every process must ask."""
        bf16 = self.bf16 and self.machine.device.type == "cuda"
        return whole_gpt(self.gpt, self.trained.ema, self.machine, bf16=bf16)


def in_bf16(config: TrainConfig, machine: Machine) -> bool:
    """Tell whether the layers compute in bfloat16."""
    return config.precision == "bf16" or (config.precision == "auto" and machine.device.type == "cuda")


def foresee(recipe: Recipe, machine: Machine, cards: int | None = None) -> Plan:
    """Return what a run takes of each of this machine's cards, or of `cards` others. Raises RecipeError."""
    config = _config(recipe)
    vq = vq_spec(recipe.tokenizer(config.tier)[0])
    options: GPTOptions = {"vocab": vq.codebook_size, "cond_len": config.cond_len, "cond_dim": config.cond_dim}
    grid = recipe.tier[config.tier].size // vq.downsampling
    spec = gpt_spec(config.model, config.condition, grid, config.rope_cond, {**options, "classes": config.classes})
    world = cards or machine.world
    if config.batch % world:
        raise RecipeError(f"train.batch: {config.batch} pictures cannot be shared evenly by {world} processes")
    bf16 = in_bf16(config, machine) or (config.precision == "auto" and cards is not None)
    return plan_of(config, spec, world, bf16)


def rehearse(recipe: Recipe, machine: Machine) -> list[str]:
    """Return what `--dry-run` says of steps and time; nothing is trained, moved or written."""
    config = _config(recipe)
    try:
        data = open_data(recipe, machine, config)
        steps = last_step(config, data.pictures.samples)
    except LoaderError as error:
        return [f"how many steps there are is not known yet: {error}"]
    return [hours(Metrics(recipe.root, recipe.root / "train" / config.tier).path, config.batch, steps)]


def _config(recipe: Recipe) -> TrainConfig:
    """Return [train] with the weights of captions that it leaves to the tier. Raises RecipeError."""
    config = recipe.train
    if config.tier not in recipe.tier:
        raise RecipeError(f"train.tier: no tier {config.tier!r} in the recipe; its tiers are {', '.join(recipe.tier)}")
    return config.model_copy(update={"captions": weights_of_captions(recipe)})


def prepare(recipe: Recipe, machine: Machine) -> Job:
    """Return the job, resumed where it can be. Raises ValueError (RecipeError, LoaderError, WeightsError) for what
    cannot work."""
    config = _config(recipe)
    for warning in untrained_captions(recipe, config.tier) if config.condition == "text" else ():
        machine.say(warning)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    data = open_data(recipe, machine, config)
    tokenizer = data.sample.tokenizer
    _check_tokenizer(recipe, data.sample, machine)
    if said := check_stored_text(config, data.sample):
        machine.say(said)
    condition = conditioner(config, str(machine.device))
    gpt = placed(_new_gpt(config, tokenizer), machine, Placement.of(config, in_bf16(config, machine)))
    folder = recipe.root / "train" / config.tier
    job = Job(
        config=config,
        machine=machine,
        folder=folder,
        root=recipe.root,
        metrics=Metrics(recipe.root, folder),
        saver=Saver(folder / "checkpoints", machine, config.keep_checkpoints),
        tokenizer=tokenizer,
        vq=recipe.tokenizer(config.tier),
        pictures=data.pictures,
        condition=condition,
        gpt=gpt,
        model=gpt,
        optimizers=make_optimizers(gpt, config),
        facts=_facts(config, machine, data, condition),
        watch=Watch(machine.device, machine.world, config.spike),
        average=Average(gpt, config.ema) if config.ema else None,
        held_out=data.held_out,
        last=last_step(config, data.pictures.samples),
    )
    _resume(job)
    job.model = wrapped(job.gpt, machine, job.config.compile)
    return job


def _check_tokenizer(recipe: Recipe, sample: CodeSample, machine: Machine) -> None:
    """Raise LoaderError where the codes come from another tokenizer or size than the recipe's."""
    made_by, size = sample.tokenizer, recipe.tier[recipe.train.tier].size
    if sample.size != size:
        raise LoaderError(
            f"the codes of tier {recipe.train.tier!r} are of {sample.size} px, the recipe says {size}: run `make"
            " pretokenize` again"
        )
    name, weights = recipe.tokenizer(recipe.train.tier)
    try:
        fingerprint = load_vq(name, weights).fingerprint
    except WeightsError:
        if recipe.train.sample_every or recipe.train.recall_pictures:
            raise
        machine.say(
            f"tokenizer: {name}'s weights {weights!r} are not here, so the codes' fingerprint is not compared; no"
            " samples are drawn"
        )
        fingerprint = made_by.fingerprint
    if made_by.fingerprint == UNKNOWN != fingerprint:
        raise LoaderError(
            f"the codes of tier {recipe.train.tier!r} were imported without their tokenizer's weights, so nothing can"
            f" compare it with the recipe's: import them again with --weights {weights}"
        )
    if (name, fingerprint) != (made_by.name, made_by.fingerprint):
        raise LoaderError(
            f"tokenizer mismatch: the codes of tier {recipe.train.tier!r} were made by {made_by.name}"
            f" {made_by.fingerprint[:12]}…, the recipe says {name} ({weights}) {fingerprint[:12]}…: run `make"
            " pretokenize` again, or set the recipe back"
        )


def _new_gpt(config: TrainConfig, tokenizer: Tokenizer) -> GPT:
    torch.manual_seed(config.seed)
    return build_gpt(
        config.model,
        config.condition,
        tokenizer.grid,
        config.rope_cond,
        vocab=tokenizer.codebook,
        classes=config.classes,
        cond_len=config.cond_len,
        cond_dim=config.cond_dim,
        token_dropout=config.token_dropout,
        resid_dropout=config.resid_dropout,
        ffn_dropout=config.ffn_dropout,
        cond_dropout=config.cond_dropout,
    )


def last_step(config: TrainConfig, samples: int) -> int:
    """Return how many steps the run has: `steps`, or as many as `epochs` passes take, whichever is fewer."""
    passes = -(-config.epochs * samples // config.batch)
    return passes if config.steps is None else min(config.steps, passes)


def _facts(config: TrainConfig, machine: Machine, data: Data, condition: Conditioner) -> dict[str, Any]:
    return {
        "train": config.model_dump(mode="json"),
        "data": data.facts,
        "tokenizer": asdict(data.sample.tokenizer),
        "text": condition.label,
        "gpt": asdict(_gpt_facts(config, data.sample.tokenizer, condition)),
        "world": machine.world,
        "versions": {"torch": torch.__version__},
    }


def _gpt_facts(config: TrainConfig, made_by: Tokenizer, condition: Conditioner) -> GPTFacts:
    """Return what the files of weights say of themselves."""
    shapes = {"cond_len": config.cond_len, "cond_dim": config.cond_dim} if config.condition == "text" else {}
    classes = {"classes": config.classes} if config.condition == "class" else {}
    return GPTFacts(
        config.model,
        config.condition,
        made_by.codebook,
        **shapes,
        **classes,
        grid=made_by.grid,
        rope_cond=config.rope_cond,
        tokenizer=made_by.record(),
        text=condition.label,
    )


def _resume(job: Job) -> None:
    """Go on from the newest whole checkpoint, or start from `init_from`, or from nothing."""
    checkpoints = job.folder / "checkpoints"
    job.machine.first(lambda: _settle(job, checkpoints))
    if (checkpoint := agreed_checkpoint(checkpoints, job.machine)) is not None:
        load_checkpoint(checkpoint, job.trained)
        job.step = checkpoint.step
        if "watch" in checkpoint.state:
            job.watch.load(checkpoint.state["watch"])
        job.machine.say(f"going on from step {job.step} ({checkpoint.folder})")
    elif job.config.init_from:
        for line in start_from(job.gpt, _first_weights(job), GPTFacts(**job.facts["gpt"])):
            job.machine.say(line)


def _first_weights(job: Job) -> Weights:
    """Return the weights of `train.init_from`. Raises RecipeError, WeightsError."""
    config = job.config
    return weights_to_start_from(config.init_from or "", config.init_ema, GPTFacts(**job.facts["gpt"]))


def _settle(job: Job, checkpoints: Path) -> None:
    """Decide what becomes of checkpoints that other codes or another recipe made (`train.on_change`)."""
    sweep_checkpoints(checkpoints)
    checkpoint = latest_checkpoint(checkpoints)
    changed = differences(checkpoint, job.facts) if checkpoint is not None else []
    if not changed:
        return
    said = f"{checkpoints} was trained with other {', '.join(changed)}"
    if job.config.on_change == "refuse":
        raise RecipeError(
            f"{said}. Set it aside and start anew: --set train.on_change=restart; go on from it: --set"
            " train.on_change=continue; or use another run folder (--out DIR)"
        )
    if job.config.on_change == "continue":
        job.machine.say(f"note: {said}: going on from it, as train.on_change says")
        return
    if job.config.init_from:
        _first_weights(job)  # what it refuses is refused before anything is moved
    number = next(n for n in range(1, 10**6) if not job.folder.with_name(f"{job.folder.name}.old-{n}").exists())
    aside = job.folder.with_name(f"{job.folder.name}.old-{number}")
    set_aside(job.folder, aside)
    job.machine.say(f"{said}: set aside as {aside}, starting anew, as train.on_change says")


def differences(checkpoint: Checkpoint, facts: dict[str, Any]) -> list[str]:
    """Return what differs between a checkpoint and this run, in words: codes, tokenizer, text features, recipe keys."""
    before, now = checkpoint.state, facts
    changed = [word for word, key in (("tokenizer", "tokenizer"), ("text features", "text")) if before[key] != now[key]]
    if before["data"]["digest"] != now["data"]["digest"]:
        changed.insert(0, "codes")
    free = FREE_TO_CHANGE if TrainConfig(**now["train"]).falls else FREE_TO_CHANGE | {"steps"}
    for key in sorted(set(now["train"]) - free):
        earlier = before["train"].get(
            key, TrainConfig.model_fields[key].default
        )  # a key that came after the checkpoint
        if earlier != now["train"][key]:
            changed.append(f"train.{key} ({earlier!r}, now {now['train'][key]!r})")
    return changed
