"""List the encoders and heads, their options and where their weights are, without importing torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from filters.scorers.options import (
    STAND_IN_CLIP,
    AestheticV1Options,
    AestheticV2Options,
    ClipNsfwOptions,
    ClipOptions,
    Options,
    ScorerError,
    StockMarkOptions,
    WatermarkOptions,
    read_options,
)
from filters.scorers.stand_in import FORMAT
from filters.weights import local
from manifests.schema import schema
from manifests.weights import STAND_IN, WeightsFile, stand_in

if TYPE_CHECKING:
    from filters.scorers.base import Compute, Encoder, Head

GET_CLIP = (
    "Get open_clip_model.safetensors of the model repository timm/vit_large_patch14_clip_224.openai (with `hf"
    ' download`), put it anywhere and set score.clip.weights to its path; or to "stand-in".'
)
GET_V1 = (
    "Get it from the code repository LAION-AI/aesthetic-predictor and set score.aesthetic_v1.weights to its path; or to"
    ' "stand-in".'
)
GET_V2 = (
    "Get it from the code repository christophschuhmann/improved-aesthetic-predictor and set score.aesthetic_v2.weights"
    ' to its path; or to "stand-in".'
)
GET_NSFW = (
    "Get clip_autokeras_binary_nsfw.pth from issue 7 of the code repository LAION-AI/CLIP-based-NSFW-Detector and set"
    ' score.clip_nsfw.weights to its path; or to "stand-in".'
)
GET_WATERMARK = (
    "Get it from the code repository LAION-AI/LAION-5B-WatermarkDetection and set score.watermark_laion.weights to its"
    ' path; or to "stand-in".'
)


OF_OPENAI_L14 = ("aesthetic_v1", "aesthetic_v2", "clip_nsfw")
"""Heads that mean something on the embeddings of OpenAI's CLIP ViT-L/14 at 224 pixels alone."""


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder. `version` is part of the score step's key: bump it when the same weights would give other numbers.

    `weights` names the bytes behind checked options (raises WeightsError); `load` takes them, how to compute, and the
    arrays wanted.
    """

    version: int
    options: type[Options]
    weights: Callable[[Any], tuple[WeightsFile, ...]]
    load: "Callable[[Any, Compute, frozenset[str]], Encoder]"


@dataclass(frozen=True)
class HeadEntry:
    """One head: what a recipe's `score.use` names. `version` as in EncoderEntry.

    `reads` are the encoder's arrays it needs. `stands_in_for` is the input's column that makes it unnecessary for a
    row; none: always run.
    """

    version: int
    encoder: str
    columns: tuple[str, ...]
    reads: tuple[str, ...]
    load: "Callable[[Any, Encoder], Head]"
    stands_in_for: str | None = None
    options: type[Options] = Options
    weights: Callable[[Any], tuple[WeightsFile, ...]] = lambda options: ()

    @property
    def schema(self) -> pa.Schema:
        """Return the columns with type, unit and range."""
        return schema(*self.columns)


@dataclass(frozen=True)
class ScorerSpec:
    """A head of the recipe with its checked options and its encoder's."""

    name: str
    options: Options
    encoder_options: Options

    def identity(self) -> dict[str, Any]:
        """Return what decides its scores beside the weights' bytes: versions and options, never where a file lies."""
        head = HEADS[self.name]
        encoder = {"version": ENCODERS[head.encoder].version, **self.encoder_options.identity()}
        return {"version": head.version, **self.options.identity(), head.encoder: encoder}


def scorer_specs(use: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> tuple[ScorerSpec, ...]:
    """Return the heads that `use` names with the options of the tables [score.NAME].

    Raises ScorerError for an unknown head, table or option, and for two heads that fill the same column.
    """
    for name in use:
        if name not in HEADS:
            raise ScorerError(f"score.use: no head {name!r}; known: {', '.join(sorted(HEADS))}")
    for name in tables:
        if name not in HEADS and name not in ENCODERS:
            raise ScorerError(f"no table [score.{name}]; known: {', '.join(sorted(HEADS | ENCODERS))}")
    filled: dict[str, str] = {}
    for name in use:
        for column in HEADS[name].columns:
            if column in filled:
                raise ScorerError(f"score.use: both {filled[column]!r} and {name!r} fill {column!r}; take one of them")
            filled[column] = name
    specs = tuple(_spec(name, tables) for name in use)
    for spec in specs:
        _check_trained_on(spec)
    return specs


def _check_trained_on(spec: ScorerSpec) -> None:
    """Raise ScorerError where a head of LAION's would read another CLIP than the one it was trained on, though as
    wide."""
    clip, own = spec.encoder_options, getattr(spec.options, "weights", STAND_IN)
    if spec.name not in OF_OPENAI_L14 or not isinstance(clip, ClipOptions) or STAND_IN in (own, clip.weights):
        return
    if (clip.model.removesuffix("-quickgelu"), clip.pretrained) != ("ViT-L-14", "openai"):
        raise ScorerError(
            f"score.{spec.name}: the head was trained on OpenAI's ViT-L-14, score.clip is {clip.model}"
            f' {clip.pretrained}; set score.clip.model = "ViT-L-14-quickgelu", pretrained = "openai"'
        )


def clip_scale(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scale of what the encoder `clip` computes: its architecture, whichever activation it is written
    with."""
    options = read_options(ClipOptions, "clip", tables.get("clip", {}))
    return str(getattr(options, "model", "")).removesuffix("-quickgelu")


def _spec(name: str, tables: Mapping[str, Mapping[str, Any]]) -> ScorerSpec:
    head = HEADS[name]
    own = {} if name in ENCODERS else tables.get(name, {})
    encoder_options = read_options(ENCODERS[head.encoder].options, head.encoder, tables.get(head.encoder, {}))
    return ScorerSpec(name, read_options(head.options, name, own), encoder_options)


def scorer_weights(spec: ScorerSpec) -> tuple[WeightsFile, ...]:
    """Return the identities of a head's weights and its encoder's, hashing files only. Raises WeightsError for what is
    missing."""
    head = HEADS[spec.name]
    return (*ENCODERS[head.encoder].weights(spec.encoder_options), *head.weights(spec.options))


def _clip_weights(options: ClipOptions) -> tuple[WeightsFile, ...]:
    if options.weights == STAND_IN:
        return (stand_in("clip", f"{STAND_IN_CLIP}, format {FORMAT}"),)
    return (local(f"clip {options.model} {options.pretrained}", options.weights, GET_CLIP),)


def _file(name: str, where: str) -> Callable[[Any], tuple[WeightsFile, ...]]:
    """Return what names the one file of options that hold `weights`."""

    def weights(options: Any) -> tuple[WeightsFile, ...]:
        """Return the file's identity."""
        return (
            stand_in(name, f"format {FORMAT}") if options.weights == STAND_IN else local(name, options.weights, where),
        )

    return weights


def _conse_weights(options: Options) -> tuple[WeightsFile, ...]:
    from filters.scorers import conse

    return conse.weights()


def _opennsfw_weights(options: Options) -> tuple[WeightsFile, ...]:
    from filters.scorers import opennsfw

    return (opennsfw.weights(),)


def _stock_mark_weights(options: StockMarkOptions) -> tuple[WeightsFile, ...]:
    from filters.scorers import stock_mark

    return stock_mark.weights()


def _load_clip(options: ClipOptions, compute: "Compute", wants: frozenset[str]) -> "Encoder":
    from filters.scorers.clip import Clip

    return Clip(options, compute, wants)


def _load_conse(options: Options, compute: "Compute", wants: frozenset[str]) -> "Encoder":
    from filters.scorers.conse import Conse

    return Conse()


def _load_opennsfw(options: Options, compute: "Compute", wants: frozenset[str]) -> "Encoder":
    from filters.scorers.opennsfw import OpenNsfw

    return OpenNsfw()


def _load_stock_mark(options: StockMarkOptions, compute: "Compute", wants: frozenset[str]) -> "Encoder":
    from filters.scorers.stock_mark import StockMark

    return StockMark(options.side)


def _load_watermark(options: WatermarkOptions, compute: "Compute", wants: frozenset[str]) -> "Encoder":
    from filters.scorers.watermark_laion import WatermarkLaion

    return WatermarkLaion(options.weights, compute)


def _load_similarity(options: Options, encoder: Any) -> "Head":
    from filters.scorers.clip import ClipSimilarity

    return ClipSimilarity()


def _load_nsfw(options: Any, encoder: Any) -> "Head":
    from filters.scorers.clip_nsfw import load_head

    return load_head(options.weights, encoder.width)


def _load_aesthetic(name: str) -> "Callable[[Any, Any], Head]":
    def load(options: Any, encoder: Any) -> "Head":
        """Return the head for an encoder of its width."""
        from filters.scorers.aesthetic import load_head

        return load_head(name, options.weights, encoder.width)

    return load


def _direct(name: str, column: str) -> "Callable[[Any, Any], Head]":
    def load(options: Any, encoder: Any) -> "Head":
        """Return the head for an encoder of its width."""
        from filters.scorers.base import Direct

        return Direct(name, column)

    return load


ENCODERS: dict[str, EncoderEntry] = {
    "clip": EncoderEntry(1, ClipOptions, _clip_weights, _load_clip),
    "conse": EncoderEntry(1, Options, _conse_weights, _load_conse),
    "opennsfw": EncoderEntry(1, Options, _opennsfw_weights, _load_opennsfw),
    "stock_mark": EncoderEntry(1, StockMarkOptions, _stock_mark_weights, _load_stock_mark),
    "watermark_laion": EncoderEntry(1, WatermarkOptions, _file("watermark_laion", GET_WATERMARK), _load_watermark),
}
HEADS: dict[str, HeadEntry] = {
    "clip_similarity": HeadEntry(
        2, "clip", ("clip_similarity", "clip_similarity_caption"), ("image", "text", "caption"), _load_similarity
    ),
    "clip_nsfw": HeadEntry(
        1, "clip", ("clip_nsfw",), ("image",), _load_nsfw, "punsafe", ClipNsfwOptions, _file("clip_nsfw", GET_NSFW)
    ),
    "aesthetic_v1": HeadEntry(
        1,
        "clip",
        ("aesthetic_v1",),
        ("image",),
        _load_aesthetic("aesthetic_v1"),
        "aesthetic_v1",
        AestheticV1Options,
        _file("aesthetic_v1", GET_V1),
    ),
    "aesthetic_v2": HeadEntry(
        1,
        "clip",
        ("aesthetic_v2",),
        ("image",),
        _load_aesthetic("aesthetic_v2"),
        "aesthetic_v2",
        AestheticV2Options,
        _file("aesthetic_v2", GET_V2),
    ),
    "watermark_laion": HeadEntry(
        1, "watermark_laion", ("pwatermark",), ("pwatermark",), _direct("watermark_laion", "pwatermark"), "pwatermark"
    ),
    "conse": HeadEntry(1, "conse", ("conse",), ("conse",), _direct("conse", "conse"), "similarity"),
    "opennsfw": HeadEntry(1, "opennsfw", ("opennsfw",), ("opennsfw",), _direct("opennsfw", "opennsfw"), "punsafe"),
    "stock_mark": HeadEntry(
        1, "stock_mark", ("stock_mark",), ("stock_mark",), _direct("stock_mark", "stock_mark"), "pwatermark"
    ),
}
