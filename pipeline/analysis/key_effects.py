"""Find which steps a key of the recipe changes, by trying: change the key alone, compare every step's settings."""

import json
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from manifests.weights import WeightsError
from pipeline.execution.step import Runtime, Step
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.stages.registry import STAGES, stage_steps

BASE: dict[str, Any] = {
    "filter": {"rules": [{"use": "size", "min_side": 64}]},
    "score": {
        "use": ["clip_similarity", "aesthetic_v2", "stock_mark"],
        "clip": {"weights": "stand-in"},
        "aesthetic_v2": {"weights": "stand-in"},
    },
    "decontaminate": {"prompts": "prompts.txt"},
    "tier": {"NAME": {"size": 64, "caption": ["llava", "openai"]}},
    "caption": {
        "openai": {"base_url": "http://127.0.0.1:8000/v1", "model": "a"},
        "llava": {"model": "stand-in", "prompt": "NAME"},
        "prompts": {"NAME": {"text": "What is beside {alt}?", "without": "What is it?"}},
    },
    "pretokenize": {"vq": "VQ-demo", "weights": "stand-in", "precision": "tf32", "t5": "precomputed", "crop": "ten"},
}
"""A recipe in which every key counts: all that can be off is on."""
VARIANTS: tuple[dict[str, Any], ...] = (BASE, {**BASE, "pretokenize": {**BASE["pretokenize"], "crop": "center"}})
"""`scales` counts for ten-crops, `flip` for the centre crop alone."""
VALUES: dict[str, Any] = {
    "input.columns": {"width": "w"},
    "output.memory_limit": "3GB",
    "fetch.allow_addresses": ["127.0.0.0/8"],
    "fetch.connect_to": {"a.test": "127.0.0.1:80"},
    "fetch.opt_outs": ["noai"],
    "filter.rules": [{"use": "size", "min_side": 65}],
    "filter.exclude": ["uids.txt", "phashes.txt"],
    "score.use": ["clip_similarity", "aesthetic_v2"],
    "dedup.placeholders": ["0123456789abcdef"],
    "decontaminate.prompts": "more_prompts.txt",
    "tier.NAME.size": 128,
    "tier.NAME.rules": [{"use": "size", "min_side": 65}],
    "tier.NAME.caption": None,
    "tier.NAME.vq": "VQ-16",
    "tier.NAME.weights": "demo",
    "pretokenize.vq": "VQ-16",
    "pretokenize.weights": "demo",
    "pretokenize.scales": [1.2],
    "pretokenize.t5_caption": "top_caption",
    "caption.llava.prompt": "one_sentence_v1",
    "caption.openai.prompt": "one_sentence_v1",
    "caption.openai.base_url": "http://127.0.0.1:8001/v1",
    "caption.openai.model": "b",
    "caption.openai.revision": "2",
    "caption.openai.answers_as": "b",
    "caption.openai.api_key_env": "KEY",
    "caption.openai.omit": ["seed"],
    "caption.openai.body": {"top_p": 0.9},
    "caption.gate.similarity": "conse",
    "caption.gate.actions": {"refusal": "drop_caption"},
    "caption.gate.retry_prompt": "one_sentence_v1",
    "caption.gate.languages": ["en"],
}
"""Another value of the keys whose type does not say one. A file's name stands for one of FILES."""
FILES = {
    "uids.txt": f"uid\n{'0' * 32}\n",
    "phashes.txt": f"phash\n{'0' * 16}\n",
    "prompts.txt": "a red cat on a mat\n",
    "more_prompts.txt": "a blue dog on a log\n",
}
UNTRIED: dict[str, tuple[str, ...]] = {
    "input.files": ("all",),
    "input.images": ("all",),
    "input.unit_rows": ("select",),
    "filter.python": ("select", "decide"),
    "decontaminate.images": ("dedup",),
    "score.clip.model": ("score",),
    "score.clip.pretrained": ("score",),
    "score.clip.weights": ("score",),
    "score.aesthetic_v1.weights": ("score",),
    "score.aesthetic_v2.weights": ("score",),
    "score.clip_nsfw.weights": ("score",),
    "score.watermark_laion.weights": ("score",),
    "caption.llava.model": ("caption", "recaption"),
    "caption.llava.revision": ("caption", "recaption"),
    "caption.llava.use": ("caption", "recaption"),
    "caption.llava.compile": (),
    "tier.NAME.captions": ("train",),
    "caption.openai.use": ("caption", "recaption"),
    "caption.openai.batch_size": (),
    "caption.python": ("caption", "recaption"),
    "caption.prompts.NAME.text": ("caption", "recaption"),
    "caption.prompts.NAME.without": ("caption", "recaption"),
    "caption.prompts": ("caption", "recaption"),
    "pretokenize.t5_weights": ("measure", "remeasure", "t5"),
    "fetch.user_agent": (),
    "output.root": (),
}
"""What cannot be tried without real weights, files or another input. `all`: a run folder belongs to one input."""


def changed_steps(key: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the steps that run again when a key such as `tier.NAME.size` changes and nothing else does.

    Steps behind them run again where what they read came out otherwise; that is not counted. `all`: the folder is
    refused. Raises LookupError for a key of which no other value is known.
    """
    if key in UNTRIED:
        return UNTRIED[key]
    table, _, name = key.partition(".")
    if table == "train":
        return _of_training(name)
    if table == "runner":  # no step is told of it
        return ()
    found: set[str] = set()
    tried = 0
    for number, values in enumerate(VARIANTS):
        for other in _others(key, field, values):
            after = _keys_with(values, key, other)
            if after is not None:
                tried += 1
                found |= {step for step, was in _keys_of(number).items() if was != after[step]}
    if not tried:
        raise LookupError(f"{key}: no other value to try; give one in VALUES or UNTRIED")
    return tuple(step.name for steps in STAGES.values() for step in steps if step.name in found)


def _of_training(name: str) -> tuple[str, ...]:
    from pipeline.training.job import FREE_TO_CHANGE

    return () if name in FREE_TO_CHANGE else ("train",)


def _others(key: str, field: FieldInfo, values: dict[str, Any]) -> list[Any]:
    """Return other values of a key: that of VALUES, else neighbours of the number, the other words, the other truth."""
    if key in VALUES:
        return [VALUES[key]]
    now = _at(values, key, field.get_default(call_default_factory=True))
    return [value for value in _neighbours(field.annotation, now) if value != now]


def _neighbours(kind: Any, now: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    parts = [part for part in get_args(kind) if part is not NoneType] or [kind]
    if bool in parts:
        return [not now]
    if int in parts:
        return [7, 9] if now is None else [now + 1, now - 1]
    return [0.5, 0.25] if float in parts and not now else [now * 0.9] if float in parts else []


def _at(values: dict[str, Any], key: str, default: Any) -> Any:
    place: Any = values
    for part in key.split("."):
        if not isinstance(place, dict) or part not in place:
            return default
        place = place[part]
    return place


@cache
def _keys_of(number: int) -> dict[str, str]:
    keys = _keys_with(VARIANTS[number], "", None)
    assert keys is not None
    return keys


def _keys_with(values: dict[str, Any], key: str, other: Any) -> dict[str, str] | None:
    """Return step -> what its key is made of, with one value changed; None where that is no recipe."""
    data = deepcopy(values)
    if key:
        *parts, last = key.split(".")
        place = data
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = other
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            recipe = parse_recipe(_beside(data, Path(folder)))
        except RecipeError:
            return None
        return {step.name: _key_of(step) for step in _steps(recipe, Path(folder))}


def _beside(value: Any, folder: Path) -> Any:
    """Return a recipe's value with the folder before every name of FILES."""
    if isinstance(value, dict):
        return {key: _beside(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_beside(item, folder) for item in value]
    return str(folder / value) if isinstance(value, str) and value in FILES else value


def _steps(recipe: Recipe, folder: Path) -> Iterator[Step]:
    for stage in STAGES:
        for step in stage_steps(recipe, stage, Runtime()):
            yield type(step)(recipe, folder, Runtime())


def _key_of(step: Step) -> str:
    """Return settings and weights as text; weights that are not here (the T5) count by their key in UNTRIED."""
    try:
        weights = [file.record() for file in step.weights()]
    except WeightsError:
        weights = []
    return json.dumps([step.settings(), weights], sort_keys=True)
