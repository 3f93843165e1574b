"""Clean captions as LlamaGen does before T5, as one table of named substitutions."""

import html
import re
import urllib.parse
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Substitution:
    """Every match of `pattern` becomes `to`."""

    name: str
    pattern: re.Pattern[str]
    to: str


def _table(*rows: tuple[str, str, str]) -> tuple[Substitution, ...]:
    return tuple(Substitution(name, re.compile(pattern), to) for name, pattern, to in rows)


_SITE = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
"""A host name of the eight endings, with its path; what is followed by @ is no site."""
_FILE = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"

ADDRESSES = _table(
    ("person tag", r"<person>", "person"),
    ("web address", rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
    ("www address", rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
)
"""First of all, before markup is read."""

CHARACTERS = _table(
    ("nickname", r"@\w+\b", ""),
    # Seven Unicode blocks in a row: strokes, kana extensions, enclosed, compatibility, extension A, hexagrams,
    # ideographs.
    ("CJK blocks", r"[\u31c0-\u9fff]+", ""),
    (
        "dashes",
        r"[-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
        r"\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d]+",
        "-",
    ),
    ("double quotes", r"[`\u00b4«»\u201c\u201d\u00a8]", '"'),
    ("single quotes", r"[\u2018\u2019]", "'"),
    ("quote entity", r"&quot;?", ""),
    ("ampersand entity", r"&amp", ""),
    ("IP address", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    ("article id at the end", r"\d:\d\d\s+$", ""),
    ("written line break", r"\\n", " "),
    ("short #number", r"#\d{1,3}\b", ""),
    ("long #number", r"#\d{5,}\b", ""),
    ("long number", r"\b\d{6,}\b", ""),
    ("file name", rf"\S+\.(?:{_FILE})", ""),
    ("quotes in a row", r"[\"']{2,}", '"'),
    ("dots in a row", r"\.{2,}", " "),
    ("symbols and brackets", r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    ("lone dot", r"\s+\.\s+", " "),
)
"""On plain text, before mojibake is mended."""

SEPARATOR = re.compile(r"[-_]")
SEPARATORS_KEPT = 3
"""A caption with more hyphens and underscores than this is taken for a slug, and they become spaces."""

PHRASES = _table(
    ("letters and number (jc6640)", r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    ("number inside letters (jc6640vc)", r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    ("letters inside number (6640vc231)", r"\b\d+[a-zA-Z]+\d+\b", ""),
    ("shipping", r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    ("download", r"(?:free\s)?download(?:\sfree)?", ""),
    ("click for", r"\bclick\b\s(?:for|on)\s\w+", ""),
    ("file kind", rf"\b(?:{_FILE})(?:\simages?)?", ""),
    ("page number", r"\bpage\s+\d+\b", ""),
    ("mixed id (j2d1a2a)", r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    ("dimensions", r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # noqa: RUF001 (Latin x, Cyrillic х, times)
    ("colon apart", r"\b\s+:\s+", ": "),
    ("no space after , . /", r"(\D[,./])\b", r"\1 "),
    ("white space", r"\s+", " "),
    ("quoted whole", r"^[\"']([\w\W]+)[\"']$", r"\1"),
    ("mark at the start", r"^['_,\-:;]", ""),
    ("mark at the end", r"['_,\-:+]$", ""),
    ("a dot and one word, alone", r"^\.\S+$", ""),
)
"""Last; white space at the ends is still there, and keeps the marks beside it, as in the reference."""


def clean_caption(caption: str) -> str:
    """Return a caption as LlamaGen's T5 preprocessing gives it, equal to the reference for every text (language/t5.py,
    from DeepFloyd IF).

    The cleaning runs twice, as it does there: what one pass lays bare the next one takes. Markup that cannot be parsed,
    on which the reference stops, is left as text.
    """
    once = _clean_once(caption)
    return once if once == caption else _clean_once(once)


def _clean_once(caption: str) -> str:
    text = urllib.parse.unquote_plus(caption).strip().lower()
    text = _substitute(text, ADDRESSES)
    text = _substitute(_visible_text(text), CHARACTERS)
    if len(SEPARATOR.findall(text)) > SEPARATORS_KEPT:
        text = SEPARATOR.sub(" ", text)
    text = html.unescape(html.unescape(_mended(text))).strip()
    return _substitute(text, PHRASES).strip()


def _mended(text: str) -> str:
    """Return a text without mojibake; ftfy leaves plain ASCII as it is, and takes a third of the time to find out."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy

    return str(ftfy.fix_text(text))


def _substitute(text: str, table: tuple[Substitution, ...]) -> str:
    for row in table:
        text = row.pattern.sub(row.to, text)
    return text


def _visible_text(markup: str) -> str:
    if "<" not in markup and "&" not in markup:
        return markup  # nothing to parse, and parsing is the slowest part
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "looks like a URL", "looks like XML": captions do
        try:
            return BeautifulSoup(markup, features="html.parser").text
        except ParserRejectedMarkup:
            return markup
