"""List the captioners and make one by the name that the recipe uses, without importing torch until then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from captioning.captioner import Captioner, CaptionerConfig, CaptionerError
from captioning.llava_files import VERSION, LlavaConfig, llava_config, llava_settings, llava_weights
from manifests.weights import WeightsFile


@dataclass(frozen=True)
class Entry:
    """One captioner. `version` is bumped when the same weights would say something else.

    `config` reads the recipe's options (raises CaptionerError); the others take what it returned: `settings` are the
    values that change the captions, `weights` names the bytes behind them (raises WeightsError), `build` loads, with a
    batch size.
    """

    version: int
    config: Callable[[Mapping[str, Any]], CaptionerConfig]
    settings: Callable[[Any], dict[str, Any]]
    weights: Callable[[Any], tuple[WeightsFile, ...]]
    build: Callable[[Any, int], Captioner]


def _build_llava(config: LlavaConfig, batch_size: int) -> Captioner:
    from captioning.llava import Llava  # torch and transformers load only here

    return Llava(config, batch_size)


CAPTIONERS: dict[str, Entry] = {"llava": Entry(VERSION, llava_config, llava_settings, llava_weights, _build_llava)}


def known_captioners() -> tuple[str, ...]:
    """Return the names that `tier.NAME.caption` may have."""
    return tuple(sorted(CAPTIONERS))


def check_captioner(name: str, options: Mapping[str, Any]) -> CaptionerConfig:
    """Return the checked options of a captioner. Raises CaptionerError naming the fault and the choices; loads
    nothing."""
    if name not in CAPTIONERS:
        raise CaptionerError(f"no captioner {name!r}; known: {', '.join(known_captioners())}")
    return CAPTIONERS[name].config(options)


def captioner_weights(name: str, options: Mapping[str, Any]) -> tuple[WeightsFile, ...]:
    """Return the identity of a captioner's weights without loading them (no torch). Raises CaptionerError,
    WeightsError."""
    config = check_captioner(name, options)
    return CAPTIONERS[name].weights(config)


def captioner_settings(name: str, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Return what a step's key holds of a captioner beside its weights: never the folder they lie in. Raises
    CaptionerError."""
    config = check_captioner(name, options)
    entry = CAPTIONERS[name]
    return {
        "captioner": name,
        "version": entry.version,
        "batch_size": config.batch_size or batch_size,
        **entry.settings(config),
    }


def build_captioner(name: str, options: Mapping[str, Any], batch_size: int) -> Captioner:
    """Return the captioner of that name, loaded; `batch_size` counts where the options name none.

    Raises CaptionerError for a wrong name or option, WeightsError for weights that are missing or of another form.
    """
    config = check_captioner(name, options)
    captioner: Captioner = CAPTIONERS[name].build(config, config.batch_size or batch_size)
    return captioner
