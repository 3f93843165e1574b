"""Cut captions where their sentences end, in any script.

sentencex (Wikimedia, MIT) does it; of 69 texts in 28 languages it gets 63, and the corrections here all but two of the
rest. A caption's language is not known when it is cut: its English rules stand for all.
"""

import re
from collections.abc import Callable, Sequence

from manifests.extras import need

MARKER = re.compile(r"\d{1,2}[.)]")
"""The number of an item of a list, alone."""
INITIALS = re.compile(r"(?:[^\W\d_]\.\s*)+")
"""Initials of a name, alone."""
KHMER = re.compile(r"[\u17d4\u17d5]+")
"""Khmer's end marks, which sentencex does not know."""
_MARKS = r".!?\u2026\u3002\uff01\uff1f\u061f\u06d4\u0964\u0589\u1362\u104b\u17d4"
_LAST = re.compile(rf"[{_MARKS}]+[\"'\u201d\u2019\u00bb)\]\u300d]*$")
LONGEST_END = 16
"""Characters at the end of a text in which its end mark is looked for."""
MOST_LETTERS = 10_000
"""Of a text that are cut; the rest, of what runs away, belongs to the last sentence."""
LATE_MARKER = re.compile(r"\s(\d{1,2})[.)]$")
"""The number of the next item, at the end of one without an end mark."""


def sentence_ends(text: str) -> list[int]:
    """Return how many characters stand up to the end of each sentence; the last one is the whole text's, without white
    space at its end. None for a text without words."""
    whole = len(text.rstrip())
    if not whole:
        return []
    ends, at = [], 0
    for piece in _pieces(text):
        at += len(piece)
        ends.append(len(text[:at].rstrip()))
    return sorted({*(end for end in ends if end < whole), whole} - {0})


def _pieces(text: str) -> list[str]:
    """Return the sentences with the white space behind them; together they are the text."""
    sentencex = need("sentencex", "caption")

    found, at = list[str](), 0
    for piece in sentencex.segment("en", text[:MOST_LETTERS]):
        stripped = piece.strip()
        place = text.find(stripped, at) if stripped else -1
        if place < 0:
            continue
        start = at if not found else place
        if found:
            found[-1] += text[at:place]
        found.append(text[start : place + len(stripped)])
        at = place + len(stripped)
    if not found:
        return [text]
    found[-1] += text[at:]
    return _joined(_at_khmer(_late_markers(found)))


def _late_markers(pieces: list[str]) -> list[str]:
    """Move the number of the next item from the end of one item to where it belongs: "1. A cat 2. A dog"."""
    moved, item = list[str](), 0
    for number, piece in enumerate(pieces):
        if MARKER.fullmatch(piece.strip()) and int(piece.strip()[:-1]) == item + 1:
            item += 1
        late = LATE_MARKER.search(piece.rstrip()[-4:])
        if item and late and int(late[1]) == item + 1 and number + 1 < len(pieces):
            cut = len(piece.rstrip()) - len(late[0]) + 1
            moved += [piece[:cut], piece[cut:]]
            item += 1
        else:
            moved.append(piece)
    return moved


def _at_khmer(pieces: list[str]) -> list[str]:
    return [part for piece in pieces for part in _cut_behind(KHMER, piece)]


def _cut_behind(mark: re.Pattern[str], piece: str) -> list[str]:
    ends = [match.end() for match in mark.finditer(piece) if piece[match.end() :].strip()]
    return [piece[start:end] for start, end in zip([0, *ends], [*ends, len(piece)], strict=True)]


def _joined(pieces: list[str]) -> list[str]:
    """Join what is no sentence by itself, the number of an item or initials, with what follows."""
    joined, before = list[str](), ""
    for number, piece in enumerate(pieces):
        alone = piece.strip()
        if number + 1 < len(pieces) and (MARKER.fullmatch(alone) or (INITIALS.fullmatch(alone) and alone.isupper())):
            before += piece
            continue
        joined.append(before + piece)
        before = ""
    return joined


def one_line(text: str) -> str:
    """Return a text without breaks and runs of white space."""
    return " ".join(text.split())


def first_sentence(text: str) -> str:
    """Return the first sentence with its end mark, on one line; the whole text where no sentence ends."""
    ends = sentence_ends(text)
    return one_line(text[: ends[0]]) if ends else ""


def leading_sentences(text: str, fits: Callable[[str], bool], ends: Sequence[int] | None = None) -> str:
    """Return the first whole sentences that fit, on one line; nothing where the first one does not fit.

    `ends`: what `sentence_ends` gives, where it is known.
    """
    for end in sorted(sentence_ends(text) if ends is None else ends, reverse=True):
        if fits(text[:end]):
            return one_line(text[:end])
    return ""


def ends_a_sentence(text: str) -> bool:
    """Tell whether a text ends as a sentence does: with an end mark, and quotation marks or brackets at most behind."""
    return bool(_LAST.search(text.rstrip()[-LONGEST_END:]))
