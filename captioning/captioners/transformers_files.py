"""A vision-language model on disk: which files it loads, where they may lie, what architecture they are, their digest,
and the settings that its captions depend on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from captioning.captioner import CaptionerConfig, read_options
from manifests.files import FormatError, parse_json, parsing
from manifests.model_folder import CONFIG, files_fingerprint, missing_files, model_files
from manifests.weights import STAND_IN, WeightsError, WeightsFile, stand_in

VERSION = 2
"""Part of the step key: bumped when the same weights would say something else."""
STAND_IN_RECIPE = "llava, CLIP 2x32 of 32 px, LLaMA 2x64, byte-level words, SHAKE-256 seed 0, format 1"
"""Stands for the bytes of the stand-in: change it whenever captioning/stand_in.py writes other numbers."""
LOADED = (".json", ".safetensors", ".model", ".jinja", ".txt")
"""Kinds of files that loading reads; a readme or a pickled twin of the weights says nothing about the captions."""
NEEDED = (("tokenizer.json", "tokenizer.model"), ("processor_config.json", "preprocessor_config.json"))
"""Beside config and weights: of each row one file."""
GET = (
    "Get it on a machine with internet: `hf download {model}` (LLaVA 1.5 7B is about 14 GB) fills the cache there;"
    ' or put the model\'s folder anywhere and set caption.NAME.model = "/that/folder".'
    ' Without real captions the chain runs with caption.NAME.model = "stand-in".'
)


WORKS = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Model types whose captions are tested against plain `generate`, or are of the family of one that is."""


class TransformersConfig(CaptionerConfig):
    """[caption.NAME] with use = "transformers": any model that transformers loads as image-text-to-text."""

    model: str = Field(
        "llava-hf/llava-1.5-7b-hf", description="a hub name found in the local cache, a local folder, or 'stand-in'"
    )
    revision: str = Field("main", description="branch, tag or commit of a hub name; local folders have none")
    max_new_tokens: int = Field(256, ge=1, description="token limit of a caption")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    temperature: float = Field(0.7, gt=0, le=5, description="of words that are drawn by a seed, as in second attempts")
    top_p: float = Field(0.9, gt=0, le=1, description="share of the likeliest words that those are drawn from")
    compile: bool = Field(False, description="compile the step that takes a word, for a GPU")


def model_config_of(options: Mapping[str, Any]) -> TransformersConfig:
    """Read the options of a model. Raises CaptionerError for an unknown key or a wrong value."""
    return read_options(TransformersConfig, options)


def model_label(config: TransformersConfig) -> str:
    """Return how outputs print the model; a local folder goes by its architecture, since its place says nothing."""
    if config.model == STAND_IN:
        return stand_in("llava-tiny", STAND_IN_RECIPE).label
    folder = Path(config.model).expanduser()
    return _model_type(folder) if folder.is_dir() else config.model


def settings_of(config: TransformersConfig) -> dict[str, Any]:
    """Return the options that change what a model says; the folder of its weights does not."""
    words = config.model_dump(include={"max_new_tokens", "dtype", "temperature", "top_p"})
    return {**words, "model": model_label(config)}


def weights_of(config: TransformersConfig) -> tuple[WeightsFile, ...]:
    """Return the identity of a model's weights. Raises WeightsError where they are not on this machine, or are no model
    that looks at a picture and answers."""
    if config.model == STAND_IN:
        return (stand_in("llava-tiny", STAND_IN_RECIPE),)
    folder = folder_of(config)
    check_architecture(folder)
    return (WeightsFile(model_label(config), files_fingerprint(loaded_files(folder)), path=str(folder)),)


def folder_of(config: TransformersConfig) -> Path:
    """Return the folder of a complete model: a local one, or the snapshot in the local cache. Raises WeightsError;
    downloads nothing."""
    folder = Path(config.model).expanduser()
    if not folder.is_dir():
        folder = _snapshot(config)
    missing = missing_files(folder, NEEDED)
    if missing:
        raise WeightsError(
            f"weights of a captioner: {folder} lacks {', '.join(missing)}. {GET.format(model=_hub_name(config))}"
        )
    return folder


def _read(folder: Path) -> dict[str, Any]:
    try:
        with parsing(folder / CONFIG, "not a model's config"):
            read = parse_json(folder / CONFIG, (folder / CONFIG).read_bytes())
            return {**read}
    except (OSError, FormatError) as error:
        raise WeightsError(f"weights of a captioner: {folder / CONFIG} cannot be read ({error})") from error


def _model_type(folder: Path) -> str:
    try:
        return str(_read(folder).get("model_type") or "unknown")
    except WeightsError:
        return "unknown"


def check_architecture(folder: Path) -> None:
    """Raise WeightsError for a folder whose config names an architecture that does not answer to a picture and a text;
    its parameters are not read."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as USABLE

    read = _read(folder)
    kind, named = read.get("model_type"), read.get("architectures") or []
    wanted = USABLE.get(str(kind))
    classes = {wanted} if isinstance(wanted, str) else set(wanted or ())
    if wanted is None or (named and not classes.intersection(named)):
        what = f"model_type {kind!r}" + (f", architecture {', '.join(map(str, named))}" if named else "")
        raise WeightsError(
            f"weights of a captioner: {folder} holds {what}, which takes no picture and text and answers; what works is"
            f" an image-text-to-text model of the installed transformers, such as {', '.join(WORKS)}"
        )


def _hub_name(config: TransformersConfig) -> str:
    return config.model if _is_hub_name(config.model) else str(TransformersConfig.model_fields["model"].default)


def _is_hub_name(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and model[0] != "."


def _snapshot(config: TransformersConfig) -> Path:
    get = GET.format(model=_hub_name(config))
    if not _is_hub_name(config.model):
        raise WeightsError(f"weights of a captioner: no folder at {config.model!r}. {get}")
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
    if not isinstance(found, str):
        raise WeightsError(
            f"weights of a captioner: {config.model!r} (revision {config.revision!r}) is neither a folder here nor in"
            f" the local cache {constants.HF_HUB_CACHE}, and nothing is downloaded by itself. {get}"
        )
    return Path(found).parent


def loaded_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that decide what it says, by name; hidden ones do not."""
    return [path for path in model_files(folder, LOADED) if not path.name.startswith(".")]
