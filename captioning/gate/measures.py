"""Measure captions: numbers without thresholds, from which flags.py makes flags with no text at hand."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import pyarrow as pa

from captioning.gate.names import compared
from captioning.gate.phrases import leaks, opens_emptily, refuses
from captioning.gate.sentences import ends_a_sentence, sentence_ends
from captioning.gate.words import is_spaceless, longest_loop, repeated_runs, unprintable, words_of

MEASURE_VERSION = 4
"""Raised when the same text gives other numbers."""
RUN_WORDS = 3
"""Words in the run whose repetitions are counted."""
RUN_LETTERS = 8
"""Letters in it, of scripts that put no space between words: some three words."""
LOOP_WORDS = 12
"""Words at most in a loop."""
COMPARED_WORDS = 64
"""First words of a caption and an alt text that are held beside one another."""
SENTENCE_WORDS = 4
"""Words from which on a sentence that comes again is counted."""


def _field(name: str, kind: pa.DataType, says: str) -> pa.Field:
    return pa.field(name, kind, metadata={"says": says})


MEASURES = pa.schema(
    [
        _field("characters", pa.int32(), "of the text without white space at its ends"),
        _field("words", pa.int32(), "of scripts without spaces each letter"),
        _field("spaceless", pa.bool_(), "most letters are of a script that puts no space between words"),
        _field("refusal", pa.bool_(), "the model speaks of itself, declines, or says that there is no picture"),
        _field("repeats", pa.int32(), f"how often the most frequent run of {RUN_WORDS} words comes"),
        _field("repeated_share", pa.float32(), f"words in runs of {RUN_WORDS} that come three times or more"),
        _field("loop", pa.int32(), f"how often up to {LOOP_WORDS} words come one right after the other"),
        _field("same_sentences", pa.int32(), f"how often the most frequent sentence of {SENTENCE_WORDS} words comes"),
        _field("distinct_share", pa.float32(), "different words by words; 1 in scripts without spaces"),
        _field("at_limit", pa.bool_(), "stopped at the token limit"),
        _field("ends_sentence", pa.bool_(), "the text ends as a sentence does"),
        _field("unprintable", pa.int32(), "control, private and unassigned characters"),
        _field("leak", pa.bool_(), "marks of a chat's form, or a run of the prompt's own words"),
        _field("boilerplate", pa.bool_(), "opens with words that would fit any picture"),
        _field("alt_likeness", pa.float32(), "0..1 between its words and the alt text's; null without one"),
        _field("lost_names", pa.int32(), "of the alt text; null where its capitals do not tell names"),
        _field("invented_names", pa.int32(), "that neither alt text nor top_caption has; null likewise"),
        _field("lost_numbers", pa.int32(), "of the alt text; null without one"),
        _field("invented_numbers", pa.int32(), "in digits, that neither alt text nor top_caption has"),
        _field("t5_tokens", pa.int32(), "of the text encoder, null without its tokenizer"),
        _field("language", pa.string(), "the likeliest, null without a detector"),
        _field("language_score", pa.float32(), "its probability"),
        _field("caption_score", pa.float32(), "of picture and caption, null without a scorer"),
        _field("alt_score", pa.float32(), "of picture and alt text, on the same scale"),
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
    what was at hand: the alt text, the input's own caption, the prompt's own words (one text for each piece between its
    fields), and the scores of picture and caption, and of picture and alt text, where there are any."""

    texts: Sequence[str | None]
    at_limit: Sequence[bool | None]
    alts: Sequence[str | None]
    top_captions: Sequence[str | None]
    prompts: Sequence[Sequence[str]]
    scores: Sequence[tuple[float | None, float | None]] = ()


def measure(said: Said, tools: Tools) -> pa.Table:
    """Return the measures of captions, in their order."""
    there = [row for row, text in enumerate(said.texts) if text is not None]
    texts = [said.texts[row] or "" for row in there]
    rows: list[dict[str, Any]] = [{} for _ in said.texts]
    asked: dict[tuple[str, ...], list[list[str]]] = {}
    for row, text in zip(there, texts, strict=True):
        prompt = tuple(said.prompts[row])
        pieces = asked.setdefault(prompt, [words_of(piece) for piece in prompt])
        rows[row] = measures_of(text, said.alts[row] or "", said.top_captions[row] or "", pieces)
        rows[row]["at_limit"] = bool(said.at_limit[row])
        if said.scores:
            rows[row]["caption_score"], rows[row]["alt_score"] = said.scores[row]
    if tools.tokens is not None and texts:
        for row, count in zip(there, tools.tokens(texts), strict=True):
            rows[row]["t5_tokens"] = int(count)
    if tools.languages is not None and texts:
        codes, scores = tools.languages(texts)
        for row, code, score in zip(there, codes, scores, strict=True):
            rows[row].update({"language": code, "language_score": float(score)} if code else {})
    return pa.Table.from_pylist(rows, schema=MEASURES)


def measures_of(text: str, alt: str, top_caption: str, asked: list[list[str]]) -> dict[str, Any]:
    """Return the measures of one text that need no tool; `asked`: words of the prompt's own pieces."""
    text, alt, top_caption = (unicodedata.normalize("NFC", some) for some in (text, alt, top_caption))
    words, others = words_of(text), words_of(alt)
    spaceless = is_spaceless(text)
    repeats, share = repeated_runs(words, RUN_LETTERS if spaceless else RUN_WORDS)
    return {
        "characters": len(text.strip()),
        "words": len(words),
        "spaceless": spaceless,
        "refusal": refuses(text),
        "repeats": repeats,
        "repeated_share": share,
        "loop": longest_loop(words, LOOP_WORDS),
        "same_sentences": _same_sentences(text, RUN_LETTERS if spaceless else SENTENCE_WORDS),
        "distinct_share": len(set(words)) / len(words) if words and not spaceless else 1.0,
        "ends_sentence": ends_a_sentence(text),
        "unprintable": unprintable(text),
        "leak": leaks(text, words, asked),
        "boilerplate": opens_emptily(text),
        "alt_likeness": likeness(words, others) if others else None,
        **compared(alt, text, top_caption),
    }


def likeness(words: Sequence[str], others: Sequence[str]) -> float:
    """Return how alike two lists of words are in order, 0..1: 1 for the same ones."""
    if words == others:
        return 1.0
    return SequenceMatcher(None, words[:COMPARED_WORDS], others[:COMPARED_WORDS], autojunk=False).ratio()


def _same_sentences(text: str, least: int) -> int:
    ends = sentence_ends(text)
    if len(ends) < 2:
        return 1
    found = Counter(tuple(words_of(text[start:end])) for start, end in zip([0, *ends], ends, strict=False))
    return max((count for words, count in found.items() if len(words) >= least), default=1)
