"""Judge a caption by its text alone: flags for what went wrong, and the first sentence as the short caption."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

FLAGS: dict[str, str] = {
    "empty": "no text at all",
    "too_short": "fewer words than QualityLimits.min_words",
    "repeated": "the same run of words comes back QualityLimits.repeats times or more",
    "refusal": "the model speaks of itself or declines",
    "truncated": "the token limit was reached in the middle of a sentence",
    "non_printable": "control, private or unassigned characters, or the replacement character",
}
"""Every flag in the order in which `caption_flags` gives them, and what it means."""

REFUSALS = (
    r"as an? (?:ai|artificial intelligence|language model|assistant)",
    r"i (?:cannot|can not|can't|am unable to|am not able to|do not have the ability)",
    r"i'm (?:unable to|not able to|sorry)",
    r"i am sorry",
    r"i apologi[sz]e",
)
_ABBREVIATIONS = (
    "st mr mrs ms dr prof rev gen col capt lt sgt hon jr sr mt ft vs no nos vol fig figs pp ca approx est inc ltd co"
    " corp dept ave blvd rd sq e.g i.e cf etc al a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec"
)
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""Words before a full stop that as a rule does not end a sentence."""
_OPENERS = "the a an it its there this that these those in on at he she they his her their to with behind"
OPENERS = frozenset(_OPENERS.split())
"""Words that, capitalised after an abbreviation, are taken to open a new sentence ('… in the U.S. The flag …')."""

_REFUSAL = re.compile(rf"\b(?:{'|'.join(REFUSALS)})\b")
_CLOSE = "\"'\u201d\u2019\u00bb)\\]"  # quotation marks and brackets that may follow an end mark
_OPEN = "\"'\u201c\u2018(\\["  # and those that may open the next word
_WIDE = "\u3002\uff01\uff1f"  # Chinese and Japanese end marks, which no space follows
_END = re.compile(rf"[.!?\u2026{_WIDE}]+[{_CLOSE}]*(?=\s|$)|[{_WIDE}]")
_LAST_WORD = re.compile(rf"[^\s{_OPEN}]+$")
_NEXT_WORD = re.compile(rf"\s*[{_OPEN}]*([^\s]*)")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_BAD_CATEGORIES = frozenset(("Cc", "Co", "Cn", "Cs"))
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class QualityLimits:
    """Thresholds of the flags."""

    min_words: int = 3
    """Words; fewer are `too_short`."""
    run_words: int = 3
    """Words in the run that `repeated` counts."""
    repeats: int = 3
    """Occurrences of one run from which a caption is `repeated`."""


def caption_flags(text: str, *, at_limit: bool = False, limits: QualityLimits | None = None) -> tuple[str, ...]:
    """Return the flags of a caption, in the order of FLAGS; none for a good one.

    `at_limit` tells that generation stopped at its token limit and not by itself.
    """
    limits = limits or QualityLimits()
    words = words_of(text)
    found = {
        "empty": not text.strip(),
        "too_short": len(words) < limits.min_words,
        "repeated": most_common_run(words, limits.run_words) >= limits.repeats,
        "refusal": refuses(text),
        "truncated": at_limit and not ends_a_sentence(text),
        "non_printable": unprintable(text) > 0,
    }
    return tuple(name for name in FLAGS if found[name])


def first_sentence(text: str) -> str:
    """Return the first sentence with its end mark, on one line; the whole text where no sentence ends.

    A full stop inside a number ('3.5'), after an abbreviation ('St. Paul', 'e.g.') or an initial ('J. Smith'), or
    before a small letter ends nothing. A blank line ends a sentence too.
    """
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    line = " ".join(paragraph.split())
    for end in _END.finditer(line):
        if _is_boundary(line, end):
            return line[: end.end()]
    return line


def sentence_marks(text: str) -> list[int]:
    """Return how many characters stand up to the end of each sentence that an end mark closes."""
    return [end.end() for end in _END.finditer(text) if _is_boundary(text, end)]


def _is_boundary(line: str, end: re.Match[str]) -> bool:
    following = _NEXT_WORD.match(line, end.end())
    word = following.group(1) if following else ""
    if not word:
        return True
    if word[0].islower():
        return False
    if end.group()[0] != "." or end.group().startswith(".."):
        return True
    before = _LAST_WORD.search(line, 0, end.start())
    return not (before and _is_abbreviation(before.group())) or word.lower() in OPENERS


def _is_abbreviation(word: str) -> bool:
    """Tell whether a full stop after the word belongs to it: a known one, an initial, or letters with stops ('U.S')."""
    return word.lower() in ABBREVIATIONS or bool(re.fullmatch(r"[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]", word))


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return [word.lower() for word in _WORD.findall(text)]


def refuses(text: str) -> bool:
    """Tell whether the model speaks of itself or declines."""
    return bool(_REFUSAL.search(text.lower().replace("\u2019", "'")))


def unprintable(text: str) -> int:
    """Return how many characters are control, private or unassigned ones, or the replacement character."""
    return sum(_is_bad(character) for character in text)


def most_common_run(words: list[str], length: int) -> int:
    """Return how often the most frequent run of so many words comes."""
    runs = Counter(zip(*(words[start:] for start in range(length)), strict=False))
    return max(runs.values(), default=0)


def ends_a_sentence(text: str) -> bool:
    """Tell whether a text ends as a sentence does."""
    ends = list(_END.finditer(text.rstrip()))
    return bool(ends) and ends[-1].end() == len(text.rstrip())


def _is_bad(character: str) -> bool:
    if character in "\n\t":
        return False
    return character == _REPLACEMENT or unicodedata.category(character) in _BAD_CATEGORIES
