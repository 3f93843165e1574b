"""Say which text features a recipe wants stored: of which caption, how long each is, and what makes them."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from manifests.files import parsing
from manifests.tables import SAID
from manifests.weights import WeightsFile
from pipeline.recipes.captions import FIT, RECAPTION, SHORT
from pipeline.recipes.schema import Recipe
from tokenize_shards.text import T5Tokens, t5_weights

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.int64]]
AT_ONCE = 1000
"""Captions whose tokens are held together."""


@dataclass(frozen=True)
class StoredFeatures:
    """Features of one caption of each pair, where `pretokenize.t5` is precomputed; none where it is online."""

    recipe: Recipe

    @property
    def wanted(self) -> bool:
        """Tell whether features are to be stored."""
        return self.recipe.pretokenize.t5 == "precomputed"

    def weights(self) -> tuple[WeightsFile, ...]:
        """Return the T5, where it is used. Raises WeightsError."""
        return (t5_weights(self.recipe.pretokenize.t5_weights),) if self.wanted else ()

    @property
    def width(self) -> int:
        """Return the width of a feature vector, from the T5's config.json."""
        config = Path(self.weights()[0].path or "") / "config.json"
        with parsing(config, "names no d_model"):
            return int(json.loads(config.read_bytes())["d_model"])

    @property
    def caption_sql(self) -> str:
        """Return SQL of the caption that is encoded, over the columns `text`, `top_caption` and `said` of a pair; null
        where it lacks that one."""
        return self.caption_from(SAID)

    def caption_from(self, said_type: pa.DataType) -> str:
        """Return the same over a column `said` of this type: of captions that were not judged nobody has counted what
        fits, and the whole one is taken."""
        name = self.recipe.pretokenize.t5_caption
        columns = {"alt": "text", "top_caption": "top_caption"}
        if name in columns:
            return f"nullif({columns[name]}, '')"
        counted = any(field.name == "fit_caption" for field in said_type.value_type)
        fit = "nullif(coalesce(x.fit_caption, x.caption), '')" if counted else "x.caption"
        kinds = {SHORT: "x.short_caption", FIT: fit}
        ending = next((end for end in kinds if name.endswith(end)), "")
        said, text = name.removesuffix(ending), kinds.get(ending, "x.caption")
        if said == RECAPTION:
            return f"[{text} FOR x IN said][1]"
        return f"[{text} FOR x IN said IF x.captioner = '{said}'][1]"

    def tokens(self, captions: pa.Array | pa.ChunkedArray) -> "Counts":
        """Return how many feature vectors each caption has, by the T5's tokenizer alone: (N,), 0 for null and for an
        empty one."""
        counts = np.zeros(len(captions), np.int64)
        for start in range(0, len(captions), AT_ONCE):
            texts = captions.slice(start, AT_ONCE).to_pylist()
            there = [row for row, text in enumerate(texts) if text]
            ids = self._tokenizer.ids([texts[row] for row in there]) if there else []
            counts[start + np.array(there, np.int64)] = [len(tokens) for tokens in ids]
        return counts

    @cached_property
    def _tokenizer(self) -> T5Tokens:
        return T5Tokens(self.recipe.pretokenize.t5_weights)
