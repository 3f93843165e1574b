"""Turn captions or class numbers into what a GPT is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.gpt import Condition
from pipeline.recipes.train import TrainConfig
from pipeline.training.text_features import TextFeatures, left_pad, text_features
from tokenize_shards.samples import Features, LoaderError

BUCKET = 16
"""Prompts are as wide as a multiple of it where shapes are compiled for: 8 shapes for 120 tokens."""


@dataclass(frozen=True)
class TextCondition:
    """Captions as text features."""

    text: TextFeatures
    cond_len: int
    cond_dim: int
    multiple: int = 1  # widths are rounded up to a multiple of it

    @property
    def label(self) -> str:
        """Return what makes the features: part of a checkpoint's facts."""
        return self.text.label

    @property
    def says(self) -> str:
        """Return the condition as outputs print it."""
        return f"text {self.label}"

    def of(self, captions: Sequence[str], stored: Sequence[Features | None] = ()) -> Condition:
        """Return (features (B, T, C), lengths (B,)) on the CPU; features that are not stored are computed. Raises
        LoaderError."""
        given = list(stored) or [None] * len(captions)
        missing = [caption for caption, array in zip(captions, given, strict=True) if array is None]
        computed = iter(self.text.features(missing))
        features = [next(computed) if array is None else array for array in given]
        wrong = next((array.shape[1] for array in features if array.shape[1] != self.cond_dim), None)
        if wrong is not None:
            raise LoaderError(f"stored text features are {wrong} wide, train.cond_dim is {self.cond_dim}")
        features_BTC, lengths_B = left_pad(features, self.cond_len, self.multiple)
        return torch.from_numpy(features_BTC), torch.from_numpy(lengths_B)


@dataclass(frozen=True)
class ClassCondition:
    """Class numbers, which stand as text where captions do: `loader.chooser` and the recipe's prompts write them so."""

    classes: int
    label: str = "class labels"

    @property
    def says(self) -> str:
        """Return the condition as outputs print it."""
        return f"{self.classes:,} classes"

    def of(self, captions: Sequence[str], stored: Sequence[Features | None] = ()) -> Condition:
        """Return labels (B,) on the CPU."""
        return torch.tensor([int(caption) for caption in captions])


Conditioner = TextCondition | ClassCondition


def conditioner(config: TrainConfig, device: str) -> Conditioner:
    """Return what `train.condition` asks for. Raises ValueError or WeightsError for text features that cannot be
    made."""
    if config.condition == "class":
        return ClassCondition(config.classes)
    text = text_features(config.text, config.text_weights, config.cond_dim, device)
    shapes = BUCKET if config.compile or device != "cpu" else 1
    return TextCondition(text, config.cond_len, config.cond_dim, shapes)
