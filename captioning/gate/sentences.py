"""Cut captions where their sentences end."""

import re

from captioning.quality import sentence_marks

BLANK = re.compile(r"\n\s*\n")
"""A blank line, which ends a sentence too."""


def sentence_ends(text: str) -> list[int]:
    """Return how many characters stand up to the end of each sentence; the last one is the whole text's, without white
    space at its end. None for a text without words."""
    whole = len(text.rstrip())
    marks = {match.start() for match in BLANK.finditer(text)} | set(sentence_marks(text))
    first = len(text) - len(text.lstrip())
    return sorted({*(mark for mark in marks if first < mark < whole), whole} - {0} if whole else ())


def one_line(text: str) -> str:
    """Return a text without breaks and runs of white space."""
    return " ".join(text.split())


def first_sentence(text: str) -> str:
    """Return the first sentence with its end mark, on one line; the whole text where no sentence ends."""
    ends = sentence_ends(text)
    return one_line(text[: ends[0]]) if ends else ""
