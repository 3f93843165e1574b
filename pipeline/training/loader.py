"""Read code shards in an order that a seed fixes and a step number finds again."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.files import digest_of, read_json
from manifests.shards import index_path, verify_shard
from pipeline.training.text_features import Features
from tokenize_shards.pack import Tokenizer, unpack_numbers

Codes = npt.NDArray[np.uint16]


class LoaderError(ValueError):
    """The code shards cannot be trained on; the message names the folder, shard or sample and the remedy."""


@dataclass(frozen=True)
class CodeSample:
    """One picture of a shard: its codes by crop (K, N), its captions as (source, text), and text features where
    stored."""

    uid: str
    codes_KN: Codes
    captions: tuple[tuple[str, str], ...]
    tokenizer: Tokenizer
    size: int  # pixels per side
    parent: str = ""  # digest of the filter manifest that the picture came through
    features: Features | None = field(default=None, repr=False)  # (n, C), of the caption whose source is `features_of`
    features_of: str = ""
    label: int | None = None  # class, of codes for class-conditional training


@dataclass(frozen=True)
class Example:
    """One picture as one step reads it: a crop and a caption have been drawn."""

    uid: str
    codes_N: Codes
    caption: str
    features: Features | None


@dataclass(frozen=True)
class Shard:
    """A tar of code samples and what its index says of it."""

    path: Path
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many, and how many pictures it reads per step."""

    rank: int = 0
    world: int = 1
    pictures: int = 1


class Pictures(Protocol):
    """A set of code samples that repeats for ever, epoch after epoch, each in its own order."""

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on, as (epoch, sample)."""
        ...


def draw(*words: object) -> int:
    """Return a number in [0, 2**64) that depends on the words alone: the head of the md5 of the words joined by ':'."""
    text = ":".join(map(str, words)).encode()
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest()[:16], 16)


def find_shards(codes: Path, tier: str) -> list[Shard]:
    """Return the shards of RUN/codes/TIER in name order. Raises LoaderError where there is nothing to train on."""
    folder = codes / tier
    with_codes = sorted({path.parent.name for path in codes.glob("*/*.tar")})
    if not with_codes:
        raise LoaderError(
            f"no codes in {codes} yet: run `make pretokenize` (or `pipeline run --stage pretokenize`) first"
        )
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise LoaderError(f"tier {tier!r} has no codes in {codes}; tiers with codes: {', '.join(with_codes)}")
    shards = [_shard(path) for path in paths]
    if not sum(shard.samples for shard in shards):
        raise LoaderError(f"tier {tier!r} is empty: its {len(shards)} shard(s) in {folder} hold no sample")
    return shards


def _shard(path: Path) -> Shard:
    try:
        index = read_json(index_path(path))
        return Shard(path.resolve(), int(index["samples"]), int(index["bytes"]), str(index["sha256"]))
    except (OSError, ValueError, KeyError) as error:
        raise LoaderError(
            f"shard {path} has no readable index {index_path(path).name} ({error}): run `make pretokenize` again"
        ) from error


def check_shards(shards: Sequence[Shard], how: str) -> None:
    """Compare each shard with its index, by "sha256" or by "size". Raises LoaderError that names the damaged shard."""
    for shard in shards:
        try:
            if how == "sha256":
                verify_shard(shard.path)
            elif (size := shard.path.stat().st_size) != shard.bytes:
                raise ValueError(f"{shard.path}: {size} bytes, its index says {shard.bytes}")
        except (OSError, ValueError) as error:
            raise LoaderError(f"damaged shard: {error}; remove it and run `make pretokenize` again") from error


def data_digest(shards: Sequence[Shard]) -> str:
    """Return the sha256 that stands for all shards: names and contents."""
    return digest_of([[shard.path.name, shard.sha256] for shard in shards])


def read_samples(shard: Shard) -> Iterator[CodeSample]:
    """Yield the samples of one local shard through webdataset, in the shard's order.

    Raises LoaderError for a sample that cannot be read, and at the end where fewer came than the index says:
    a cut tar otherwise ends in silence.
    """
    import webdataset

    # One shard per pipeline, already this process's own: nothing is left to split or shuffle.
    parts = webdataset.WebDataset([str(shard.path)], shardshuffle=False, nodesplitter=None, empty_check=False)
    count = 0
    for part in parts:
        count += 1
        yield _decode(part, shard.path)
    if count != shard.samples:
        raise LoaderError(f"shard {shard.path}: {count} samples came out, its index says {shard.samples}")


def _decode(part: Mapping[str, Any], path: Path) -> CodeSample:
    """Read one sample's members; npy files may hold no Python objects."""
    where = f"shard {path}, sample {part.get('__key__')}"
    try:
        codes_KN = np.load(io.BytesIO(part["codes.npy"]), allow_pickle=False)
        record = json.loads(part["json"])
        tokenizer = Tokenizer(
            name=record["tokenizer"]["name"],
            fingerprint=record["tokenizer"]["fingerprint"],
            codebook=int(record["tokenizer"]["codebook"]),
            grid=int(record["grid"]),
            stand_in=bool(record["tokenizer"].get("stand_in", False)),
        )
        captions = tuple((str(caption["source"]), str(caption["text"])) for caption in record["captions"])
        features = unpack_numbers(np.load(io.BytesIO(part["t5.npy"]), allow_pickle=False)) if "t5.npy" in part else None
        sample = CodeSample(
            uid=str(record["uid"]),
            codes_KN=codes_KN,
            captions=captions,
            tokenizer=tokenizer,
            size=int(record["size"]),
            parent=str(record.get("parent_digest", "")),
            features=features,
            features_of=str(record.get("t5", {}).get("source", "")),
            label=None if record.get("label") is None else int(record["label"]),
        )
        crops = len(record.get("crops") or codes_KN)
    except (KeyError, TypeError, AttributeError, ValueError, EOFError) as error:
        raise LoaderError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error
    if codes_KN.dtype != np.uint16 or codes_KN.ndim != 2 or not len(codes_KN) or codes_KN.shape[1] != tokenizer.grid**2:
        raise LoaderError(
            f"{where}: codes are {codes_KN.dtype} {codes_KN.shape}, wanted uint16 (crops, {tokenizer.grid**2})"
        )
    if crops != len(codes_KN):
        raise LoaderError(f"{where}: {len(codes_KN)} code arrays, but {crops} crops are noted")
    if features is not None and (features.ndim != 2 or not np.isfinite(features).all()):
        raise LoaderError(
            f"{where}: features are {features.shape} with {np.isfinite(features).mean():.1%} finite numbers, wanted"
            " (tokens, width)"
        )
    if int(codes_KN.max()) >= tokenizer.codebook:
        raise LoaderError(f"{where}: code {int(codes_KN.max())} is outside the codebook of {tokenizer.codebook}")
    return sample


def _of(tokenizer: Tokenizer, samples: Iterator[CodeSample], path: Path) -> Iterator[CodeSample]:
    """Pass samples of one tokenizer through. Raises LoaderError for a sample of another."""
    for sample in samples:
        if sample.tokenizer != tokenizer:
            raise LoaderError(
                f"shard {path}, sample {sample.uid}: made by {sample.tokenizer}, the first sample of all by"
                f" {tokenizer}: run `make pretokenize` again"
            )
        yield sample


def first_sample(shards: Sequence[Shard]) -> CodeSample:
    """Return the first sample there is; its tokenizer is the one that all others must have."""
    return next(read_samples(next(shard for shard in shards if shard.samples)))


class MemoryPictures:
    """All samples in memory: every process holds all and takes its slice of each step, so the order never depends on
    their number."""

    def __init__(self, samples: Sequence[CodeSample], seed: int, share: Share) -> None:
        self.samples = sorted(samples, key=lambda sample: sample.uid)
        self.seed, self.share = seed, share

    def order(self, epoch: int) -> list[CodeSample]:
        """Return the samples as this epoch reads them."""
        return sorted(self.samples, key=lambda sample: draw(sample.uid, epoch, self.seed))

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on; a batch may cross epochs."""
        share, count = self.share, len(self.samples)
        batch, step, epoch, order = share.pictures * share.world, first, -1, list[CodeSample]()
        while True:
            start = step * batch + share.rank * share.pictures
            drawn: list[tuple[int, CodeSample]] = []
            for position in range(start, start + share.pictures):
                if position // count != epoch:
                    epoch, order = position // count, self.order(position // count)
                drawn.append((epoch, order[position % count]))
            yield drawn
            step += 1


class StreamedPictures:
    """Shards read one after another: shards in an order per epoch, every world-th to this process, samples in an order
    within each shard.

    Packing has shuffled all samples over the shards already. One shard is in memory at a time.
    """

    def __init__(self, shards: Sequence[Shard], seed: int, share: Share) -> None:
        self.shards = [shard for shard in shards if shard.samples]
        if len(self.shards) < share.world:
            raise LoaderError(
                f"{len(self.shards)} shard(s) for {share.world} processes: use smaller shards (pretokenize.shard_rows),"
                " fewer processes, or hold them in memory (train.memory_bytes)"
            )
        self.seed, self.share = seed, share
        self.tokenizer = first_sample(shards).tokenizer

    def order(self, epoch: int) -> list[Shard]:
        """Return this process's shards as this epoch reads them: webdataset's split_by_node, before it skips whole
        shards."""
        return sorted(self.shards, key=lambda shard: draw(shard.path.name, epoch, self.seed))[
            self.share.rank :: self.share.world
        ]

    def steps(self, first: int) -> Iterator[list[tuple[int, CodeSample]]]:
        """Yield this process's share of each step, from step `first` on; a batch may cross epochs."""
        drawn: list[tuple[int, CodeSample]] = []
        for pair in self._from(first * self.share.pictures):
            drawn.append(pair)
            if len(drawn) == self.share.pictures:
                yield drawn
                drawn = []

    def _from(self, skip: int) -> Iterator[tuple[int, CodeSample]]:
        epoch = 0
        while True:
            for shard in self.order(epoch):
                if skip >= shard.samples:
                    skip -= shard.samples
                    continue
                yield from ((epoch, sample) for sample in self._mixed(shard, epoch)[skip:])
                skip = 0
            epoch += 1

    def _mixed(self, shard: Shard, epoch: int) -> list[CodeSample]:
        samples = _of(self.tokenizer, read_samples(shard), shard.path)
        return sorted(samples, key=lambda sample: draw(sample.uid, epoch, self.seed))


@dataclass(frozen=True)
class Limits:
    """When shards are held in memory, and how many pictures of them."""

    memory_bytes: int
    max_pictures: int | None
    seed: int


def open_pictures(shards: Sequence[Shard], limits: Limits, share: Share) -> Pictures:
    """Return the samples in memory where they fit or are capped, else streamed. Raises LoaderError."""
    if limits.max_pictures is None and sum(shard.bytes for shard in shards) > limits.memory_bytes:
        return StreamedPictures(shards, limits.seed, share)
    tokenizer = first_sample(shards).tokenizer
    samples = [sample for shard in shards for sample in _of(tokenizer, read_samples(shard), shard.path)]
    if limits.max_pictures is not None:
        samples = sorted(samples, key=lambda sample: draw(sample.uid, limits.seed))[: limits.max_pictures]
    return MemoryPictures(samples, limits.seed, share)


def chooser(captions: Mapping[str, float], seed: int, classes: int = 0) -> Callable[[int, CodeSample], Example]:
    """Return the rule that draws a crop and a caption for (epoch, sample), by hash(uid, epoch, seed).

    captions: source -> weight. Sources that a sample lacks are left out of its draw; where none is left, its first
    caption is used, or an empty one. With `classes` the caption is the number of the sample's class; LoaderError is
    raised where it has none below it.
    """

    def choose(epoch: int, sample: CodeSample) -> Example:
        crop = draw(sample.uid, epoch, seed, "crop") % len(sample.codes_KN)
        if classes:
            return Example(sample.uid, sample.codes_KN[crop], str(class_of(sample, classes)), None)
        source, text = _drawn_caption(sample, captions, draw(sample.uid, epoch, seed, "caption") / 2**64)
        stored = sample.features if source == sample.features_of else None
        return Example(sample.uid, sample.codes_KN[crop], text, stored)

    return choose


def class_of(sample: CodeSample, classes: int) -> int:
    """Return a sample's class, 0..classes - 1. Raises LoaderError where it has none such."""
    if sample.label is None or not 0 <= sample.label < classes:
        got = "no label" if sample.label is None else f"label {sample.label}"
        raise LoaderError(
            f"sample {sample.uid} has {got}; train.condition = 'class' wants one from 0 to train.classes - 1,"
            f" {classes - 1}"
        )
    return sample.label


def _drawn_caption(sample: CodeSample, weights: Mapping[str, float], share: float) -> tuple[str, str]:
    there = [(caption, weights[caption[0]]) for caption in sample.captions if weights.get(caption[0], 0) > 0]
    left = share * sum(weight for _, weight in there)
    for caption, weight in there:
        left -= weight
        if left < 0:
            return caption
    return there[-1][0] if there else (*sample.captions, ("", ""))[0]
