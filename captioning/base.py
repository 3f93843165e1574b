"""List the kinds of captioners and make one as the recipe describes it, without importing torch until then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from captioning.captioner import Ahead, Captioner, CaptionerConfig, CaptionerError
from captioning.captioners import openai_config, vllm
from captioning.captioners.transformers_files import (
    VERSION,
    TransformersConfig,
    model_config_of,
    settings_of,
    weights_of,
)
from manifests.weights import STAND_IN, WeightsFile

EXACT = "exact on one GPU type"
NOT_PROMISED = "not promised"
DEFAULT_KIND = "transformers"


@dataclass(frozen=True)
class Entry:
    """One kind of captioner. `version` is bumped when the same weights would say something else.

    `config` reads the recipe's options (raises CaptionerError); the others take what it returned: `settings` are the
    values that change the captions, `weights` names the bytes behind them (raises WeightsError), `build` loads, with a
    name, the number of pictures that are described together (none: as many as fit), and who decodes them ahead of it
    (none: the captioner itself). `promise`: whether the same question gives the same words again.
    """

    version: int
    config: Callable[[Mapping[str, Any]], CaptionerConfig]
    settings: Callable[[Any], dict[str, Any]]
    weights: Callable[[Any], tuple[WeightsFile, ...]]
    build: Callable[[str, Any, int | None, Any], Captioner]
    promise: str = NOT_PROMISED


def _build(name: str, config: TransformersConfig, batch_size: int | None, ahead: Ahead | None) -> Captioner:
    from captioning.captioners.transformers_model import TransformersCaptioner  # torch and transformers load only here

    return TransformersCaptioner(name, config, batch_size, ahead)


def _build_endpoint(
    name: str, config: openai_config.OpenAIConfig, batch_size: int | None, ahead: Ahead | None
) -> Captioner:
    from captioning.captioners.openai import Endpoint  # aiohttp loads only here

    return Endpoint(name, config)


def _stand_in_config(options: Mapping[str, Any]) -> CaptionerConfig:
    return model_config_of({"model": STAND_IN, "max_new_tokens": 16, **options})


def _build_vllm(name: str, config: Any, batch_size: int | None, ahead: Ahead | None) -> Captioner:
    from captioning.captioners.vllm import VllmCaptioner  # vllm loads only here

    return VllmCaptioner(name, config, batch_size, ahead)


KINDS: dict[str, Entry] = {}


def register_kind(name: str, entry: Entry) -> None:
    """Make a kind of captioner known under a name, that of `use` in [caption.NAME]. Raises ValueError for a name that
    another has."""
    if name in KINDS:
        raise ValueError(f"two kinds of captioners are called {name!r}")
    KINDS[name] = entry


register_kind(DEFAULT_KIND, Entry(VERSION, model_config_of, settings_of, weights_of, _build, promise=EXACT))
register_kind("stand_in", Entry(VERSION, _stand_in_config, settings_of, weights_of, _build, promise=EXACT))
register_kind(
    "openai",
    Entry(
        openai_config.VERSION,
        openai_config.config_of,
        openai_config.settings_of,
        openai_config.weights_of,
        _build_endpoint,
    ),
)


register_kind("vllm", Entry(vllm.VERSION, vllm.vllm_config_of, settings_of, vllm.vllm_weights_of, _build_vllm))


def known_kinds() -> tuple[str, ...]:
    """Return the names that `use` may have."""
    return tuple(sorted(KINDS))


def kind_of(name: str, options: Mapping[str, Any]) -> str:
    """Return the kind of the captioner of this name. Raises CaptionerError for one that does not exist."""
    kind = options.get("use") or (name if name in KINDS else DEFAULT_KIND)
    if kind not in KINDS:
        raise CaptionerError(f"caption.{name}.use: no kind of captioner {kind!r}; known: {', '.join(known_kinds())}")
    return str(kind)


def check_captioner(name: str, options: Mapping[str, Any]) -> CaptionerConfig:
    """Return the checked options of a captioner. Raises CaptionerError naming the fault and the choices; loads
    nothing."""
    try:
        return KINDS[kind_of(name, options)].config(options)
    except CaptionerError as error:
        said = str(error)
        raise CaptionerError(said if said.startswith("caption.") else f"caption.{name}: {said}") from error


def captioner_weights(name: str, options: Mapping[str, Any]) -> tuple[WeightsFile, ...]:
    """Return the identity of a captioner's weights without loading them (no torch). Raises CaptionerError,
    WeightsError."""
    config = check_captioner(name, options)
    return KINDS[kind_of(name, options)].weights(config)


def captioner_settings(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step's key holds of a captioner beside its weights and prompt: never the folder they lie in, nor
    how many pictures it takes at a time. Raises CaptionerError."""
    config, kind = check_captioner(name, options), kind_of(name, options)
    entry = KINDS[kind]
    return {"kind": kind, "version": entry.version, **entry.settings(config)}


def captioner_promise(name: str, options: Mapping[str, Any]) -> str:
    """Return whether the same question gives the same words again: EXACT or NOT_PROMISED."""
    return KINDS[kind_of(name, options)].promise


def build_captioner(
    name: str, options: Mapping[str, Any], batch_size: int | None = None, ahead: Ahead | None = None
) -> Captioner:
    """Return the captioner of that name, loaded; `batch_size` counts where the options name none. `ahead`: processes
    that decode pictures ahead of it (captioners/prepare.py).

    Raises CaptionerError for a wrong name or option, WeightsError for weights that are missing or of another form.
    """
    config = check_captioner(name, options)
    captioner: Captioner = KINDS[kind_of(name, options)].build(name, config, config.batch_size or batch_size, ahead)
    return captioner
