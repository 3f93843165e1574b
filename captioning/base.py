"""Say what a captioner is, and make one by the name that the recipe uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from captioning.catalog import CAPTIONERS, CaptionerConfig, CaptionerError
from manifests.weights import WeightsFile

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Caption:
    """What a captioner says of one picture: the text, its first sentence, and the flags of captioning/quality.py."""

    text: str
    short: str
    flags: tuple[str, ...] = ()


class Captioner(Protocol):
    """A model that describes pictures; loaded once in a worker process."""

    name: str
    version: int
    """Part of the step's key: bumped when the same weights would say something else."""
    model: str
    """The model as every output prints it: stand-ins say 'stand-in weights'."""
    revision: str
    """sha256 of the weights, in hex."""
    prompt: str
    """Name of the prompt, see captioning/prompts.py."""

    def caption(self, images: "list[Image.Image]") -> list[Caption]:
        """Return one caption per RGB picture, in order. Any number of pictures; they are cut into padded batches."""
        ...


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
