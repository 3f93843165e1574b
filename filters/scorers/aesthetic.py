"""Score aesthetics with LAION's heads on CLIP embeddings: both are affine, so each is one dot product."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from filters.scorers.base import Array, Encoded, read_state
from filters.scorers.options import ScorerError
from filters.scorers.stand_in import seeded
from manifests.weights import STAND_IN, WeightsError

Model = Literal["v1", "v2"]
WIDTH = 768
"""Numbers in an embedding of CLIP ViT-L/14, which the heads were trained on."""
LAYERS: dict[Model, dict[str, tuple[int, int]]] = {
    "v1": {"": (1, WIDTH)},
    "v2": {
        "layers.0.": (1024, WIDTH),
        "layers.2.": (128, 1024),
        "layers.4.": (64, 128),
        "layers.6.": (16, 64),
        "layers.7.": (1, 16),
    },
}
"""Linear layers by the prefix of their names, (outputs, inputs). v2's dropout does nothing here, and it has no
activations: christophschuhmann/improved-aesthetic-predictor, simple_inference.py."""
STAND_IN_GAIN: dict[Model, float] = {"v1": 20.0, "v2": 1.76}
STAND_IN_BIAS = 5.0
"""Make the stand-in's scores look like scores: about 5, spread over a few points."""


@dataclass(frozen=True)
class Affine:
    """score = weights . embedding + bias, in float64."""

    weights: Array
    """(768,)"""
    bias: float

    def __call__(self, embeddings: Array) -> Array:
        """Return (N,) float32 scores of (N, 768) embeddings, which are brought to length 1 first: of longer ones scores
        are nonsense.

        Raises ValueError for embeddings of another width.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.weights):
            raise ValueError(f"aesthetic head: embeddings are {embeddings.shape}, wanted (N, {len(self.weights)})")
        x_ND = np.asarray(embeddings, np.float64)
        x_ND = x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
        scores: Array = ((x_ND * self.weights).sum(axis=1) + self.bias).astype(np.float32)
        return scores


@dataclass(frozen=True)
class Aesthetic:
    """The heads `aesthetic_v1` and `aesthetic_v2`."""

    name: str
    head: Affine

    def score(self, encoded: Encoded) -> dict[str, Array]:
        """Return the column of the same name, about 0..10."""
        return {self.name: self.head(encoded["image"])}


def load_head(name: str, weights: str, width: int) -> Aesthetic:
    """Load the head for an encoder whose embeddings have `width` numbers. Raises ScorerError where they do not fit,
    WeightsError."""
    if width != WIDTH:
        raise ScorerError(
            f"score.{name}: the head was trained on ViT-L/14's {WIDTH} numbers, score.clip.model gives {width}; take"
            " ViT-L-14-quickgelu"
        )
    model: Model = "v1" if name == "aesthetic_v1" else "v2"
    return Aesthetic(name, _load_stand_in(model) if weights == STAND_IN else load_aesthetic(weights, model))


def load_aesthetic(path: str | Path, model: Model) -> Affine:
    """Load a head in LAION's format and collapse its layers in float64. Raises WeightsError for weights of another
    form."""
    state = read_state(str(path), f"aesthetic_{model}")
    wanted = _shapes(model)
    got = {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
    for key in sorted(got.keys() | wanted.keys()):
        if got.get(key) != wanted.get(key):
            what = f"{key!r} is {got.get(key, 'missing')}, wanted {wanted.get(key, 'none of that name')}"
            layers = ", ".join(f"{name} {shape}" for name, shape in wanted.items())
            raise WeightsError(f"weights of aesthetic_{model}: {path} has another form: {what}; wanted: {layers}")
    return _collapsed(state, tuple(LAYERS[model]))


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a head's state dict."""
    layers = LAYERS[model].items()
    return {
        f"{prefix}{part}": shape[: 2 if part == "weight" else 1]
        for prefix, shape in layers
        for part in ("weight", "bias")
    }


def _collapsed(state: Mapping[str, Any], prefixes: tuple[str, ...]) -> Affine:
    """Multiply the layers into one, from the last to the first."""
    weights, bias = np.ones((1, 1)), np.zeros(1)
    for prefix in reversed(prefixes):
        bias = bias + weights @ state[f"{prefix}bias"].double().numpy()
        weights = weights @ state[f"{prefix}weight"].double().numpy()
    return Affine(weights[0], float(bias[0]))


def _load_stand_in(model: Model) -> Affine:
    """Write a head with seeded weights as a file, and load it as any other."""
    import torch

    empty = {key: torch.zeros(shape) for key, shape in _shapes(model).items()}
    state = seeded(empty, f"aesthetic_{model}", STAND_IN_GAIN[model])
    state[list(empty)[-1]] += STAND_IN_BIAS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.pth"
        torch.save(state, path)
        return load_aesthetic(path, model)
