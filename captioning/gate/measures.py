"""Measure captions: numbers without thresholds, from which flags.py makes flags with no text at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from captioning.quality import ends_a_sentence, most_common_run, refuses, unprintable, words_of

MEASURE_VERSION = 1
"""Raised when the same text gives other numbers."""
RUN_WORDS = 3
"""Words in the run whose repetitions are counted."""
MEASURES = pa.schema(
    [
        pa.field("characters", pa.int32(), metadata={"says": "of the text without white space at its ends"}),
        pa.field("words", pa.int32()),
        pa.field("refusal", pa.bool_(), metadata={"says": "the model speaks of itself or declines"}),
        pa.field(
            "repeats", pa.int32(), metadata={"says": f"how often the most frequent run of {RUN_WORDS} words comes"}
        ),
        pa.field("at_limit", pa.bool_(), metadata={"says": "stopped at the token limit"}),
        pa.field("ends_sentence", pa.bool_(), metadata={"says": "the text ends as a sentence does"}),
        pa.field("unprintable", pa.int32(), metadata={"says": "control, private and unassigned characters"}),
        pa.field("copies_alt", pa.bool_(), metadata={"says": "the same words as the alt text"}),
        pa.field("t5_tokens", pa.int32(), metadata={"says": "of the text encoder, null without its tokenizer"}),
        pa.field("language", pa.string(), metadata={"says": "the likeliest, null without a detector"}),
        pa.field("language_score", pa.float32(), metadata={"says": "its probability"}),
    ]
)
"""A row a text; all null where there is none."""
Languages = Callable[[Sequence[str]], tuple[Sequence[str | None], Sequence[float]]]
"""Texts -> the likeliest language of each, and its probability."""
Counts = Callable[[Sequence[str]], Sequence[int]]
"""Texts -> tokens of each."""


@dataclass(frozen=True)
class Tools:
    """What is measured by models of others: None where they are not at hand, and what they give is null then."""

    languages: Languages | None = None
    tokens: Counts | None = None


@dataclass(frozen=True)
class Said:
    """Captions of some pictures, (N,) each: the text (None: there is none), whether it stopped at the token limit, and
    what was at hand: the alt text, the input's own caption, the filled prompt."""

    texts: Sequence[str | None]
    at_limit: Sequence[bool | None]
    alts: Sequence[str | None]
    top_captions: Sequence[str | None]
    prompts: Sequence[str]


def measure(said: Said, tools: Tools) -> pa.Table:
    """Return the measures of captions, in their order."""
    there = [row for row, text in enumerate(said.texts) if text is not None]
    texts = [said.texts[row] or "" for row in there]
    rows: list[dict[str, object]] = [{} for _ in said.texts]
    for row, text in zip(there, texts, strict=True):
        words = words_of(text)
        alt = words_of(said.alts[row] or "")
        rows[row] = {
            "characters": len(text.strip()),
            "words": len(words),
            "refusal": refuses(text),
            "repeats": most_common_run(words, RUN_WORDS),
            "at_limit": bool(said.at_limit[row]),
            "ends_sentence": ends_a_sentence(text),
            "unprintable": unprintable(text),
            "copies_alt": bool(words) and words == alt,
        }
    if tools.tokens is not None and texts:
        for row, count in zip(there, tools.tokens(texts), strict=True):
            rows[row]["t5_tokens"] = int(count)
    if tools.languages is not None and texts:
        codes, scores = tools.languages(texts)
        for row, code, score in zip(there, codes, scores, strict=True):
            rows[row].update({"language": code, "language_score": float(score)} if code else {})
    return pa.Table.from_pylist(rows, schema=MEASURES)
