"""LLaVA on disk: which files it loads, where they may lie, their digest, the settings that its captions depend on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from captioning.captioner import CaptionerConfig, CaptionerError
from manifests.model_folder import files_fingerprint, missing_files, model_files
from manifests.weights import STAND_IN, WeightsError, WeightsFile, stand_in

VERSION = 1
"""Part of the step key: bumped when the same weights would say something else."""
STAND_IN_RECIPE = "llava, CLIP 2x32 of 32 px, LLaMA 2x64, byte-level words, SHAKE-256 seed 0, format 1"
"""Stands for the bytes of the stand-in: change it whenever captioning/stand_in.py writes other numbers."""
LOADED = (".json", ".safetensors", ".model", ".jinja", ".txt")
"""Kinds of files that loading reads; a readme or a pickled twin of the weights says nothing about the captions."""
NEEDED = (("tokenizer.json", "tokenizer.model"), ("processor_config.json", "preprocessor_config.json"))
"""Beside config and weights: of each row one file."""
GET = (
    "Get it on a machine with internet: `hf download {model}` (LLaVA 1.5 7B is about 14 GB) fills the cache there;"
    ' or put the model\'s folder anywhere and set caption.llava.model = "/that/folder".'
    ' Without real captions the chain runs with caption.llava.model = "stand-in".'
)


class LlavaConfig(CaptionerConfig):
    """[caption.llava]: the options of LLaVA."""

    model: str = Field(
        "llava-hf/llava-1.5-7b-hf", description="a hub name found in the local cache, a local folder, or 'stand-in'"
    )
    revision: str = Field("main", description="branch, tag or commit of a hub name; local folders have none")
    max_new_tokens: int = Field(256, ge=1, description="token limit of a caption")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


def llava_config(options: Mapping[str, Any]) -> LlavaConfig:
    """Read the options of LLaVA. Raises CaptionerError for an unknown key or a wrong value."""
    try:
        return LlavaConfig.model_validate(dict(options))
    except ValidationError as error:
        raise CaptionerError("; ".join(_explain(fault) for fault in error.errors())) from error


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known keys: {', '.join(sorted(LlavaConfig.model_fields))}"
    return f"{key}: {fault['msg']} (got {fault['input']!r})"


def model_label(config: LlavaConfig) -> str:
    """Return how outputs print the model; a local folder goes by 'llava', since its place says nothing."""
    if config.model == STAND_IN:
        return stand_in("llava-tiny", STAND_IN_RECIPE).label
    return "llava" if Path(config.model).expanduser().is_dir() else config.model


def llava_settings(config: LlavaConfig) -> dict[str, Any]:
    """Return the options that change what LLaVA says; the folder of its weights does not."""
    return {**config.model_dump(include={"max_new_tokens", "dtype"}), "model": model_label(config)}


def llava_weights(config: LlavaConfig) -> tuple[WeightsFile, ...]:
    """Return the identity of LLaVA's weights. Raises WeightsError where they are not on this machine."""
    if config.model == STAND_IN:
        return (stand_in("llava-tiny", STAND_IN_RECIPE),)
    folder = llava_folder(config)
    return (WeightsFile(model_label(config), files_fingerprint(loaded_files(folder)), path=str(folder)),)


def llava_folder(config: LlavaConfig) -> Path:
    """Return the folder of a complete model: a local one, or the snapshot in the local cache. Raises WeightsError;
    downloads nothing."""
    folder = Path(config.model).expanduser()
    if not folder.is_dir():
        folder = _snapshot(config)
    missing = missing_files(folder, NEEDED)
    if missing:
        raise WeightsError(
            f"weights of llava: {folder} lacks {', '.join(missing)}. {GET.format(model=_hub_name(config))}"
        )
    return folder


def _hub_name(config: LlavaConfig) -> str:
    return config.model if _is_hub_name(config.model) else str(LlavaConfig.model_fields["model"].default)


def _is_hub_name(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and model[0] != "."


def _snapshot(config: LlavaConfig) -> Path:
    get = GET.format(model=_hub_name(config))
    if not _is_hub_name(config.model):
        raise WeightsError(f"weights of llava: no folder at {config.model!r}. {get}")
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
    if not isinstance(found, str):
        raise WeightsError(
            f"weights of llava: {config.model!r} (revision {config.revision!r}) is neither a folder here nor in the"
            f" local cache {constants.HF_HUB_CACHE}, and nothing is downloaded by itself. {get}"
        )
    return Path(found).parent


def loaded_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that decide what it says, by name; hidden ones do not."""
    return [path for path in model_files(folder, LOADED) if not path.name.startswith(".")]
