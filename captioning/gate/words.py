"""Cut captions into words, and tell scripts that put no space between them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence


def _marks() -> str:
    """Return the ranges of all marks that join the letter before them: vowels of Indic scripts, points, accents."""
    there = [code for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"]
    ranges, start = [], there[0]
    for one, following in zip(there, [*there[1:], 0], strict=True):
        if following != one + 1:
            ranges.append(f"\\u{start:04x}-\\u{one:04x}")
            start = following
    return "".join(ranges)


LETTER = rf"(?:[^\W_][{_marks()}\u200c\u200d]*)"
"""A letter or digit with the marks that stand on it."""
WORD = re.compile(rf"{LETTER}+(?:['\u2019]{LETTER}+)*")
SPACELESS = re.compile(
    "[\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
"""Letters of Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese."""
_SPACED = rf"(?:(?!{SPACELESS.pattern}){LETTER})+"
TOKEN = re.compile(rf"{SPACELESS.pattern}|{_SPACED}(?:['\u2019]{_SPACED})*")
BAD_CATEGORIES = frozenset(("Cc", "Co", "Cn", "Cs"))
TURNING = frozenset("\ufffd\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""The replacement character, the mark of the order of bytes, and those that turn the direction of what follows."""
PICTOGRAPHS = ("\U0001f000", "\U0001faff")


def words_of(text: str) -> list[str]:
    """Return the words in small letters; of scripts without spaces each letter."""
    if text.isascii() or not SPACELESS.search(text):
        return WORD.findall(text.lower().replace("\u2019", "'"))
    return TOKEN.findall(text.lower().replace("\u2019", "'"))


def is_spaceless(text: str) -> bool:
    """Tell whether most letters are of a script that puts no space between words."""
    if text.isascii():
        return False
    letters = sum(letter.isalpha() for letter in text)
    return 2 * len(SPACELESS.findall(text)) > letters > 0


def unprintable(text: str) -> int:
    """Return how many control, private and unassigned characters, and replacement characters, a text holds."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return 0
    return sum(letter not in "\n\t" and _is_bad(letter) for letter in text)


def _is_bad(letter: str) -> bool:
    """Tell whether a character has no place in a caption. Newer pictographs than this Python knows are none of them."""
    if unicodedata.category(letter) in BAD_CATEGORIES:
        return not PICTOGRAPHS[0] <= letter <= PICTOGRAPHS[1] or unicodedata.category(letter) != "Cn"
    return letter in TURNING


def repeated_runs(words: Sequence[str], length: int) -> tuple[int, float]:
    """Return how often the most frequent run of so many words comes, and the share of words that stand in runs which
    come three times or more."""
    runs = Counter(zip(*(words[start:] for start in range(length)), strict=False))
    most = max(runs.values(), default=0)
    if most < 3:
        return most, 0.0
    covered = bytearray(len(words))
    for start in range(len(words) - length + 1):
        if runs[tuple(words[start : start + length])] >= 3:
            covered[start : start + length] = b"\1" * length
    return most, sum(covered) / len(words)


def longest_loop(words: Sequence[str], longest: int) -> int:
    """Return how often some words, 1 to `longest` of them, come one right after the other at most; 1 where none do."""
    most = 1
    for period in range(1, min(longest, len(words) // 2) + 1):
        same = 0
        for place in range(period, len(words)):
            same = same + 1 if words[place] == words[place - period] else 0
            most = max(most, same // period + 1)
    return most
