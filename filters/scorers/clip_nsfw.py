"""Score unsafe content with LAION's head on CLIP embeddings: three hidden layers over ViT-L/14's 768 numbers."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filters.scorers.base import Array, Encoded, read_state
from filters.scorers.options import ScorerError
from filters.scorers.stand_in import seeded
from manifests.weights import STAND_IN, WeightsError

WIDTH = 768
"""Numbers in an embedding of CLIP ViT-L/14, which the head was trained on."""
SIZES = (WIDTH, 64, 512, 256, 1)
"""Units of the layers (LAION-AI/CLIP-based-NSFW-Detector, issue 7: the Keras model carried over to PyTorch)."""
SHAPES: dict[str, tuple[int, ...]] = {
    "norm.mean": (WIDTH,),
    "norm.variance": (WIDTH,),
    **{f"linear_{n}.weight": (SIZES[n], SIZES[n - 1]) for n in range(1, len(SIZES))},
    **{f"linear_{n}.bias": (SIZES[n],) for n in range(1, len(SIZES))},
}


@dataclass(frozen=True)
class ClipNsfw:
    """The head `clip_nsfw`: its tensors in float64."""

    state: Mapping[str, Array]
    name = "clip_nsfw"

    def score(self, encoded: Encoded) -> dict[str, Array]:
        """Return `clip_nsfw`, 0..1. Row by row: what a product gives for one row can depend on how many there are."""
        return {
            "clip_nsfw": np.array([self.probability(row) for row in encoded["image"].astype(np.float64)], np.float32)
        }

    def probability(self, embedding_D: Array) -> float:
        """Return the probability of one embedding of length 1: standardised, ReLU between layers, sigmoid at the
        end."""
        x = (embedding_D - self.state["norm.mean"]) / np.sqrt(self.state["norm.variance"])
        for layer in range(1, len(SIZES)):
            x = self.state[f"linear_{layer}.weight"] @ x + self.state[f"linear_{layer}.bias"]
            if layer < len(SIZES) - 1:
                x = np.maximum(x, 0)
        return float(1 / (1 + np.exp(-x[0])))


def load_head(weights: str, width: int) -> ClipNsfw:
    """Load the head for an encoder whose embeddings have `width` numbers. Raises ScorerError where they do not fit,
    WeightsError."""
    if width != WIDTH:
        raise ScorerError(
            f"score.clip_nsfw: the head was trained on ViT-L/14's {WIDTH} numbers, score.clip.model gives {width}; take"
            " ViT-L-14-quickgelu"
        )
    return _load_stand_in() if weights == STAND_IN else load_nsfw(weights)


def load_nsfw(path: str | Path) -> ClipNsfw:
    """Load a state dict of the published form. Raises WeightsError for another one, or a variance that is not
    positive."""
    state = read_state(str(path), "clip_nsfw")
    got = {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
    for key in sorted(got.keys() | SHAPES.keys()):
        if got.get(key) != SHAPES.get(key):
            what = f"{key!r} is {got.get(key, 'missing')}, wanted {SHAPES.get(key, 'none of that name')}"
            raise WeightsError(
                f"weights of clip_nsfw: {path} has another form: {what}; wanted:"
                f" {', '.join(f'{k} {v}' for k, v in SHAPES.items())}"
            )
    tensors = {key: value.double().numpy() for key, value in state.items()}
    if not all(np.isfinite(array).all() for array in tensors.values()) or not (tensors["norm.variance"] > 0).all():
        raise WeightsError(
            f"weights of clip_nsfw: {path} holds numbers that are not finite, or a variance that is not positive"
        )
    return ClipNsfw(tensors)


def _load_stand_in() -> ClipNsfw:
    """Write a head with seeded weights as a file, and load it as any other."""
    import torch

    empty: dict[str, Any] = {key: torch.zeros(shape) for key, shape in SHAPES.items()}
    state = seeded(empty, "clip_nsfw", 1.4)
    state["norm.variance"] = torch.full((WIDTH,), 1 / WIDTH)  # what embeddings of length 1 have
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.pth"
        torch.save(state, path)
        return load_nsfw(path)
