"""Run the scorers of a recipe over pictures: each encoder once, for all heads and only the rows that need it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from filters.scorers.base import Array, Encoder, Head
from filters.scorers.catalog import ENCODERS, HEADS, ScorerSpec, scorer_weights

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Panel:
    """Loaded encoders, each with its heads."""

    groups: tuple[tuple[Encoder, tuple[Head, ...]], ...]

    def score(self, images: "Sequence[Image]", texts: Sequence[str | None], needs: Mapping[str, Array]) -> dict[str, Array]:
        """Return score column -> (N,) float32, NaN where it was not asked for or cannot be said.

        `needs` holds, per head, the rows (N,) bool that it must score; a head that is not in it scores all.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} pictures with {len(texts)} texts")
        everything = np.ones(len(images), np.bool_)
        columns: dict[str, Array] = {}
        for encoder, heads in self.groups:
            asked = {head.name: np.asarray(needs.get(head.name, everything), np.bool_) for head in heads}
            rows = np.flatnonzero(np.logical_or.reduce(list(asked.values()))).tolist()
            for head in heads:
                columns.update({name: np.full(len(images), np.nan, np.float32) for name in HEADS[head.name].columns})
            if not rows:
                continue
            encoded = encoder.encode([images[row] for row in rows], [texts[row] for row in rows])
            for head in heads:
                mine = asked[head.name][rows]
                for name, values in head.score({key: array[mine] for key, array in encoded.items()}).items():
                    columns[name][np.array(rows)[mine]] = values
        return columns


def load_panel(specs: Sequence[ScorerSpec], batch_size: int) -> Panel:
    """Load every encoder once, and its heads. `batch_size` pictures run together where that is faster; it is part of the result's bits.

    Raises ScorerError where model, head and options do not fit, WeightsError for weights that are missing, altered or of another form.
    """
    for spec in specs:
        scorer_weights(spec)
    groups = []
    for name in dict.fromkeys(HEADS[spec.name].encoder for spec in specs):
        mine = [spec for spec in specs if HEADS[spec.name].encoder == name]
        wants = frozenset(array for spec in mine for array in HEADS[spec.name].reads)
        encoder = ENCODERS[name].load(mine[0].encoder_options, batch_size, wants)
        groups.append((encoder, tuple(HEADS[spec.name].load(spec.options, encoder) for spec in mine)))
    return Panel(tuple(groups))
