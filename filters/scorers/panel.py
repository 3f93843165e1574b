"""Run the scorers of a recipe over pictures: each encoder once, for all heads and only the rows that need it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from filters.scorers.base import Array, Compute, Encoder, Head, Texts
from filters.scorers.catalog import ENCODERS, HEADS, ScorerSpec, scorer_weights

if TYPE_CHECKING:
    from PIL.Image import Image


EMBEDS = "clip"
"""The encoder whose picture embeddings are kept where the recipe asks for embeddings."""


@dataclass(frozen=True)
class Scored:
    """Score columns (N,) float32, and CLIP's picture embeddings (N, width) float16 where they are kept."""

    columns: dict[str, Array]
    embeddings: Array | None = None


@dataclass(frozen=True)
class Panel:
    """Loaded encoders, each with its heads."""

    groups: tuple[tuple[Encoder, tuple[Head, ...]], ...]
    embeddings: bool = False

    def score(self, images: "Sequence[Image]", texts: Texts, needs: Mapping[str, Array]) -> Scored:
        """Return every score column, NaN where it was not asked for or cannot be said, and the embeddings where they
        are kept.

        `needs` holds, per head, the rows (N,) bool that it must score; a head that is not in it scores all.
        """
        for kind, some in texts.items():
            if len(images) != len(some):
                raise ValueError(f"{len(images)} pictures with {len(some)} texts of kind {kind!r}")
        everything = np.ones(len(images), np.bool_)
        columns: dict[str, Array] = {}
        embeddings: Array | None = None
        for encoder, heads in self.groups:
            asked = {head.name: np.asarray(needs.get(head.name, everything), np.bool_) for head in heads}
            kept = [everything] if self.embeddings and encoder.name == EMBEDS else []
            rows = np.flatnonzero(np.logical_or.reduce([*asked.values(), *kept])).tolist()
            for head in heads:
                columns.update({name: np.full(len(images), np.nan, np.float32) for name in HEADS[head.name].columns})
            if not rows:
                continue
            encoded = encoder.encode(
                [images[row] for row in rows], {kind: [some[row] for row in rows] for kind, some in texts.items()}
            )
            if kept:
                embeddings = encoded["image"].astype(np.float16)
            for head in heads:
                mine = asked[head.name][rows]
                for name, values in head.score({key: array[mine] for key, array in encoded.items()}).items():
                    columns[name][np.array(rows)[mine]] = values
        return Scored(columns, embeddings)

    @property
    def width(self) -> int:
        """Return how many numbers an embedding has that is kept; 0 where none is."""
        return next((int(getattr(encoder, "width", 0)) for encoder, _ in self.groups if encoder.name == EMBEDS), 0)

    @property
    def preprocessing(self) -> dict[str, str]:
        """Return encoder -> what becomes of a picture before it sees it."""
        return {encoder.name: encoder.preprocessing for encoder, _ in self.groups}


def load_panel(specs: Sequence[ScorerSpec], compute: Compute, *, embeddings: bool = False) -> Panel:
    """Load every encoder once, and its heads; with `embeddings`, CLIP's of every picture are kept too.

    Raises ScorerError where model, head and options do not fit, WeightsError for weights that are missing, altered or
    of another form.
    """
    for spec in specs:
        scorer_weights(spec)
    groups = []
    for name in dict.fromkeys(HEADS[spec.name].encoder for spec in specs):
        mine = [spec for spec in specs if HEADS[spec.name].encoder == name]
        wants = frozenset(array for spec in mine for array in HEADS[spec.name].reads)
        encoder = ENCODERS[name].load(mine[0].encoder_options, compute, wants)
        groups.append((encoder, tuple(HEADS[spec.name].load(spec.options, encoder) for spec in mine)))
    return Panel(tuple(groups), embeddings)
