"""Open what a training run reads: the codes of a tier or a blend of several, those held out, and what they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.files import digest_of
from manifests.roots import place_of
from pipeline.loading.batch import Expected
from pipeline.loading.blend import Blend
from pipeline.loading.captions import Drawing
from pipeline.loading.joins import Join
from pipeline.loading.loader import CodeSet, Loader, Reading, Share
from pipeline.loading.selection import Selection
from pipeline.loading.where import bits_where
from pipeline.loading.window import Source
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.train import Blended, TrainConfig
from pipeline.training.caption_sources import check_sources
from pipeline.training.distributed import Machine
from pipeline.training.validation import HeldOut
from tokenize_shards.packed_index import PackedIndex, open_packed_index
from tokenize_shards.samples import CodeSample, LoaderError, check_shards, class_of, first_sample, tier_folder

RECALLED = 20_000
"""Pictures that drawn ones are compared with at most: all their codes are held."""


@dataclass(frozen=True)
class Data:
    """What is read."""

    sample: CodeSample
    """The first of all: its tokenizer is that of every sample."""
    pictures: Loader
    held_out: HeldOut | None
    facts: dict[str, Any]
    """What a checkpoint says of the data."""


@dataclass(frozen=True)
class _Set:
    """One set of codes: the run it is of, and its source before pictures are held out."""

    root: Path
    source: Source


def open_data(recipe: Recipe, machine: Machine, config: TrainConfig) -> Data:
    """Return the data of a run, its shards checked. config: [train] with the captions resolved.

    Raises RecipeError and LoaderError for what cannot be read, before anything is written.
    """
    share = _share(config, machine)
    blend = config.blend or [Blended(run=None, tier=None, weight=1, epochs=None)]
    if config.blend and config.max_pictures:
        raise RecipeError("train.max_pictures caps one set of codes, and train.blend names several: leave one out")
    sets = [_open_set(recipe, machine, config, one) for one in blend]
    sample = first_sample(sets[0].source.index.shards)
    _check_condition(config, sample)
    if config.condition == "text":
        for one in sets:
            beside = one.source.join.sources if one.source.join else ()
            if fallbacks := check_sources(one.source.index, config.captions or {}, beside):
                machine.say(fallbacks)
    pictures = _loader(config, sets, sample, share)
    if config.recall_pictures and pictures.samples > RECALLED:
        raise RecipeError(
            f"train.recall_pictures: {pictures.samples:,} pictures are too many to compare with, wanted {RECALLED:,} at"
            " most; set train.max_pictures, or train.recall_pictures = 0"
        )
    return Data(sample, pictures, _held_out(config, sets, sample, machine), _facts(sets, sample))


def _check_condition(config: TrainConfig, sample: CodeSample) -> None:
    """Raise LoaderError where the first of the samples has no class to train on, or nothing but one."""
    if config.condition == "class":
        class_of(sample, config.classes)
    elif sample.label is not None and not sample.captions:
        raise LoaderError(
            f"the codes of tier {config.tier!r} have labels and no captions: set train.condition = 'class'"
        )


def _share(config: TrainConfig, machine: Machine) -> Share:
    if config.batch % machine.world:
        raise RecipeError(f"train.batch: {config.batch} pictures cannot be shared evenly by {machine.world} processes")
    return Share(machine.rank, machine.world, config.batch // machine.world)


def _open_set(recipe: Recipe, machine: Machine, config: TrainConfig, one: Blended) -> _Set:
    """Return a set whose shards are as its index says."""
    root, tier = place_of(one.run) if one.run else recipe.root, one.tier or config.tier
    folder = tier_folder(root / "codes", tier)
    index = open_packed_index(folder)
    if not index.samples:
        raise LoaderError(f"tier {tier!r} is empty: its {len(index.shards)} shard(s) in {folder} hold no sample")
    if index.is_own:
        machine.say(f"note: {folder} has no packed index yet: made for now; `make pretokenize` keeps one")
    check_shards(index.shards[machine.rank :: machine.world], config.verify)
    if not index.is_own and (config.where or config.join):
        machine.first(lambda: _prepare(root, index, config))
    join = Join(root, index, config.join) if config.join else None
    if join:
        machine.say(join.says)
    bits = bits_where(root, index, config.where) if config.where else None
    return _Set(root, Source(index, Selection(validation=config.validation, seed=config.seed, bits=bits), join))


def _prepare(root: Path, index: PackedIndex, config: TrainConfig) -> None:
    """Let the leading process make what all of this machine then read."""
    if config.join:
        Join(root, index, config.join)
    if config.where:
        bits_where(root, index, config.where)


def _loader(config: TrainConfig, sets: Sequence[_Set], sample: CodeSample, share: Share) -> Loader:
    """Return what is trained on."""
    sources = [one.source for one in sets]
    if config.max_pictures is not None:
        source = sources[0]
        bound = source.selection.smallest(source.index, config.max_pictures)
        sources = [replace(source, selection=replace(source.selection, bound=bound))]
    opened = [_code_set(config, source, sample) for source in sources]
    loader = Loader(opened, share, config.prefetch, _blend(config, opened))
    if config.blend and config.blend[0].epochs is not None:
        loader.samples = int(sum(one.samples * (by.epochs or 0) for one, by in zip(opened, config.blend, strict=True)))
    return loader


def _code_set(config: TrainConfig, source: Source, sample: CodeSample) -> CodeSet:
    classes = config.classes if config.condition == "class" else 0
    expected = Expected(sample.tokenizer, Drawing(config.captions or {}), config.seed, classes, config.cond_dim)
    return CodeSet(source, expected, Reading(config.window, config.prefetch, config.memory_bytes))


def _blend(config: TrainConfig, opened: Sequence[CodeSet]) -> Blend | None:
    if not config.blend:
        return None
    if config.blend[0].epochs is not None:
        return Blend.by_epochs([one.samples for one in opened], [by.epochs or 0 for by in config.blend], config.seed)
    return Blend([by.weight or 0 for by in config.blend], config.seed)


def _held_out(config: TrainConfig, sets: Sequence[_Set], sample: CodeSample, machine: Machine) -> HeldOut | None:
    """Return what is measured: the held-out pictures of all sets, as many of each as it has; None for none."""
    if not config.validation:
        return None
    sources = [replace(one.source, selection=replace(one.source.selection, held_out=True)) for one in sets]
    opened = [_code_set(config, source, sample) for source in sources]
    loader = Loader(opened, Share(), 0, Blend([one.samples for one in opened], config.seed))
    return HeldOut(loader, min(loader.samples, config.validation_pictures), machine.world, machine.rank)


def _facts(sets: Sequence[_Set], sample: CodeSample) -> dict[str, Any]:
    """Return what makes the data: the digest of the shards, of several sets or joined tables of all of them."""
    digests = [[one.source.index.digest, one.source.join.digest if one.source.join else None] for one in sets]
    alone = len(sets) == 1 and digests[0][1] is None
    indexes = [one.source.index for one in sets]
    return {
        "digest": digests[0][0] if alone else digest_of(digests),
        "parent": sample.parent,
        "shards": sum(len(index.shards) for index in indexes),
        "samples": sum(index.samples for index in indexes),
    }
