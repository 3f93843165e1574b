"""Score captions by the scorer that scores alt texts: how well a picture goes with each of the two, on one scale."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.scorers.catalog import scorer_specs, scorer_weights
from manifests.weights import WeightsFile
from pipeline.execution.decode_pool import Pair
from pipeline.recipes.schema import Recipe
from pipeline.steps.kept_pairs import opened

if TYPE_CHECKING:
    from filters.scorers.panel import Panel
COLUMNS = {"clip_similarity": "clip_similarity", "conse": "conse"}
"""Scorer -> the column that it gives a picture and its text."""
Scores = dict[bytes, tuple[float | None, float | None]]
"""uid -> score of picture and caption, score of picture and alt text; None where there is no number."""


@dataclass(frozen=True)
class CaptionScores:
    """The scorer that `caption.gate.similarity` names, with its options in [score]; none where it is none."""

    recipe: Recipe

    @property
    def name(self) -> str | None:
        """Return the scorer's name."""
        return self.recipe.caption.gate.similarity

    @cached_property
    def specs(self) -> tuple[Any, ...]:
        """Return the scorer with its options. Raises ScorerError."""
        return tuple(scorer_specs([self.name], self.recipe.score.model_extra or {})) if self.name else ()

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the scorer's weights. Raises WeightsError."""
        return tuple(dict.fromkeys(file for spec in self.specs for file in scorer_weights(spec)))

    def settings(self) -> dict[str, Any]:
        """Return what the scores depend on beside weights, pictures and texts."""
        if not self.name:
            return {}
        values = self.recipe.score
        options = [spec.identity() for spec in self.specs]
        return {"similarity": [self.name, options, values.batch_size, values.precision]}

    @cached_property
    def panel(self) -> "Panel":
        """Return the loaded scorer. Raises ScorerError, WeightsError."""
        from filters.scorers.base import Compute
        from filters.scorers.panel import load_panel

        return load_panel(self.specs, Compute(self.recipe.score.batch_size, self.recipe.score.precision))

    def scored(
        self, pairs: Iterable[Pair], captions: Mapping[bytes, str], alts: Mapping[bytes, str | None]
    ) -> Iterator[Scores]:
        """Yield, a batch at a time, the scores of the pictures that have a caption and open."""
        opening = partial(opened, max_pixels=self.recipe.fetch.max_pixels)
        asked = ((uid, opening(jpeg)) for uid, jpeg in pairs if captions.get(uid))
        whole = ((uid, pixels) for uid, pixels in asked if not isinstance(pixels, str))
        while batch := list(islice(whole, self.recipe.score.batch_size)):
            uids = [uid for uid, _ in batch]
            of_captions = self._score(batch, [captions[uid] for uid in uids])
            of_alts = self._score(batch, [alts.get(uid) or None for uid in uids])
            yield dict(zip(uids, zip(of_captions, of_alts, strict=True), strict=True))

    def _score(self, batch: list[tuple[bytes, Any]], texts: list[str | None]) -> list[float | None]:
        from PIL import Image

        pictures = [Image.fromarray(pixels) for _, pixels in batch]
        none: list[str | None] = [None] * len(texts)
        column = self.panel.score(pictures, {"text": texts, "caption": none}, {}).columns[COLUMNS[self.name or ""]]
        return [float(value) if np.isfinite(value) else None for value in column]
