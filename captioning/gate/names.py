"""Find names and numbers in alt texts and captions, to see which a caption has lost or made up.

Names are told by their capital letters: in texts whose words are nearly all capitalised, as titles are, and in scripts
without capitals, they cannot be told, and nothing is said of them.
"""

import re

_TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019\-][^\W\d_]+)*")
_NUMBER = re.compile(
    r"(?<![\w,])(?<!\d\.)\d{1,3}(?:[ ,\u00a0\u202f]\d{3})+(?:\.\d+)?(?!\w)"
    r"|(?<![\w,])(?<!\d\.)\d+(?:[.,]\d+)?[A-Za-z]{0,4}(?!\w)(?![.,]\d)"
)
_ITEM = re.compile(r"(?:^|\s)(\d{1,2})[.)](?=\s)")
"""The number of an item of a list."""
MOST_LETTERS = 10_000
"""Of a text that are looked at."""
TITLE_SHARE = 0.7
"""Share of capitalised words from which a text is taken for a title."""
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_TENS = "thirty forty fifty sixty seventy eighty ninety"
WORDS = {
    **{name: number for number, name in enumerate(_SMALL.split())},
    **{name: number for number, name in enumerate(_ORDINALS.split(), 1)},
    **{name: 10 * number for number, name in enumerate(_TENS.split(), 3)},
}
"""Numbers that are written out."""
ONE = ("one", "first")
"""Words that say little of a number: "one dog" is any."""
_NEVER = (
    "i i'm i'll i've i'd mr mrs ms dr st jr sr prof ok tv usb led diy pc cd dvd gps faq pdf jpg png hd ai"
    " january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday"
)
NEVER = frozenset(_NEVER.split())
"""Capitalised words that are no names."""
_OPENERS = (
    "a an the this that these those in on at by of for from with and or but its it his her their our my your he she"
    " they we there here two three four five six several many some both all each another one no"
    " not is are close front view"
)
OPENERS = frozenset(_OPENERS.split())
"""Words that open a sentence before a name, and are no part of it."""


def names_of(text: str) -> list[str] | None:
    """Return the words of names in small letters, once each, in order; None where a text's capitals do not tell."""
    found, starts = list[str](), _starts(text)
    tokens = list(_TOKEN.finditer(text))
    capital = sum(token[0][0].isupper() for token in tokens)
    small = sum(token[0][0].islower() for token in tokens)
    if not capital + small or (capital > 1 and capital >= TITLE_SHARE * (capital + small)):
        return None if tokens else []
    for number, token in enumerate(tokens):
        word, name = token[0], plain_name(token[0])
        if not word[0].isupper() or len(word) < 2:
            continue
        if token.start() in starts and not word.isupper() and not _opens_a_name(name, tokens, number, text):
            continue
        if name not in NEVER and name not in found:
            found.append(name)
    return found


_START = re.compile(r"(?:^|[.!?:\u2026\n|]|[\"\u201c\u2018(\[\-\u2013\u2014*])[\s\"'\u201c\u2018(\[*\d.)]*")
"""What stands before a word that has a capital anyway: a sentence's end, a quotation mark, a dash, an item's number."""


def _starts(text: str) -> set[int]:
    return {match.end() for match in _START.finditer(text)}


def _opens_a_name(name: str, tokens: list[re.Match[str]], number: int, text: str) -> bool:
    """Tell whether a sentence's first word is the first of a name: the next one has a capital too, as in "Barack
    Obama"."""
    if name in OPENERS or number + 1 == len(tokens):
        return False
    after = tokens[number + 1]
    return after[0][0].isupper() and text[tokens[number].end() : after.start()] == " "


def plain_name(word: str) -> str:
    """Return a word in small letters without a possessive end."""
    return re.sub(r"['\u2019]s$", "", word.lower()).replace("\u2019", "'")


def numbers_of(text: str, spelled: bool = True) -> list[str]:
    """Return the numbers of a text, once each, in order, as digits: "1,000" and "1000" are one, "two" is 2 where
    `spelled`; digits within words, as in jc6640, are none."""
    items = [match.span(1) for match in _ITEM.finditer(text)]
    listed = [text[slice(*span)] for span in items] == [str(number) for number in range(1, len(items) + 1)]
    skipped = {span[0] for span in items} if listed and len(items) > 1 else set()
    found = [
        (match.start(), _plain_number(match[0])) for match in _NUMBER.finditer(text) if match.start() not in skipped
    ]
    if spelled:
        words = ((token.start(), token[0].lower()) for token in _TOKEN.finditer(text))
        found += [(place, number) for place, word in words if (number := _spelled(word)) and word not in ONE]
    return list(dict.fromkeys(number for _, number in sorted(found)))


def _spelled(word: str) -> str | None:
    """Return the digits of a number that is written out, "twenty-one" too; None for another word."""
    tens, _, ones = word.partition("-")
    if not ones:
        return str(WORDS[word]) if word in WORDS else None
    both = WORDS.get(tens, 0), WORDS.get(ones, 0)
    return str(sum(both)) if both[0] in range(20, 100, 10) and 0 < both[1] < 10 else None


def _plain_number(text: str) -> str:
    text = re.sub(r"[A-Za-z]+$", "", re.sub(r"[ \u00a0\u202f]", "", text))
    whole = re.fullmatch(r"(\d{1,3}(?:,\d{3})+)((?:\.\d+)?)", text)
    text = whole[1].replace(",", "") + whole[2] if whole else text.replace(",", ".")
    return text.rstrip("0").rstrip(".") if "." in text else text.lstrip("0") or "0"


def compared(alt: str, caption: str, also: str = "") -> dict[str, int | None]:
    """Return how many names and numbers of the alt text a caption lacks, and how many it has that neither the alt text
    nor `also` has; None where capitals do not tell names, or there is no alt text."""
    alt, caption, also = (text[:MOST_LETTERS] for text in (alt, caption, also))
    if not alt.strip():
        return dict.fromkeys(("lost_names", "invented_names", "lost_numbers", "invented_numbers"))
    said = {plain_name(token[0]) for token in _TOKEN.finditer(caption)}
    known = {plain_name(token[0]) for text in (alt, also) for token in _TOKEN.finditer(text)}
    wanted, made = names_of(alt), names_of(caption)
    numbers, all_numbers = numbers_of(alt), {*numbers_of(alt), *numbers_of(also)}
    given = set(numbers_of(caption)) | ({"1"} if said.intersection(ONE) else set())
    return {
        "lost_names": None if wanted is None else sum(name not in said for name in wanted),
        "invented_names": None if made is None else sum(name not in known for name in made),
        "lost_numbers": sum(number not in given for number in numbers),
        "invented_numbers": sum(number not in all_numbers for number in numbers_of(caption, spelled=False)),
    }
