"""Tell which texts repeat a prompt of an evaluation set, by n-grams of words."""

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.files import parsing

PROMPT_COLUMNS = ("prompt", "caption", "text")
"""Columns that hold prompts: the first that a table has."""


class PromptError(ValueError):
    """A file of prompts cannot be read; the message names file and line."""


@dataclass(frozen=True)
class Hit:
    """A text repeats this prompt: `words` in a row, of its file `name`, line `line`."""

    name: str
    line: int
    words: str


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text: runs of letters and digits, case folded, after NFKC; punctuation only parts them."""
    return tuple(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


class Prompts:
    """The n-grams of all prompts, with where each stands first.

    A prompt of n words and more is repeated by a text that has any n of them in a row. One with `whole` words and more,
    but fewer than n, must stand in the text as a whole; a shorter one must be the whole text.
    """

    def __init__(self, n: int, whole: int) -> None:
        """`n`: words in a row; `whole`: words from which on a shorter prompt may stand within a text."""
        self.n, self.whole = n, min(whole, n)
        self.grams: dict[tuple[str, ...], tuple[str, int]] = {}
        self.texts: dict[tuple[str, ...], tuple[str, int]] = {}
        self.sizes: list[int] = []

    def add(self, name: str, prompts: Iterable[tuple[int, str]]) -> None:
        """Take the (line, prompt) of a file."""
        for line, prompt in prompts:
            said = words(prompt)
            if said:
                self.texts.setdefault(said, (name, line))
            if len(said) >= self.whole:
                for gram in _grams(said, min(len(said), self.n)):
                    self.grams.setdefault(gram, (name, line))
        self.sizes = sorted({len(gram) for gram in self.grams}, reverse=True)

    def hit(self, text: str | None) -> Hit | None:
        """Return the longest n-gram that a text repeats, the first in the text of several, or None."""
        said = words(text or "")
        if said in self.texts and said:
            return Hit(*self.texts[said], " ".join(said))
        for size in self.sizes:
            for gram in _grams(said, size):
                if gram in self.grams:
                    return Hit(*self.grams[gram], " ".join(gram))
        return None


def _grams(said: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(len(said) - size + 1):
        yield said[start : start + size]


def read_prompts(path: Path) -> list[tuple[int, str]]:
    """Return (line, prompt) of a file: CSV or TSV with a column `Prompt`, `caption` or `text`, JSON lines with such a
    key, or plain lines.

    Raises PromptError naming the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix in (".csv", ".tsv"):
                return _of_table(path, csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
            lines = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8 text ({error})") from error
    return (
        [(number, _of_json(path, number, line)) for number, line in lines]
        if path.suffix in (".jsonl", ".json")
        else lines
    )


def _of_table(path: Path, rows: Any) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    column = -1
    try:
        for row in rows:
            if column < 0:
                column = _prompt_column(path, row)
            elif column < len(row) and row[column].strip():
                found.append((rows.line_num, row[column]))
    except csv.Error as error:
        raise PromptError(f"{path}: after {len(found)} prompts: {error}") from error
    return found


def _prompt_column(path: Path, names: list[str]) -> int:
    lower = [name.strip().lower() for name in names]
    for name in PROMPT_COLUMNS:
        if name in lower:
            return lower.index(name)
    raise PromptError(f"{path}: line 1: no column named {', '.join(PROMPT_COLUMNS)}; its columns: {', '.join(names)}")


def _of_json(path: Path, number: int, line: str) -> str:
    with parsing(f"{path}: line {number}", "not JSON", PromptError):
        value = json.loads(line)
    if isinstance(value, str):
        return value
    keys = {str(key).lower(): one for key, one in value.items()} if isinstance(value, dict) else {}
    for name in PROMPT_COLUMNS:
        if isinstance(keys.get(name), str):
            return str(keys[name])
    raise PromptError(f"{path}: line {number}: no text under {', '.join(PROMPT_COLUMNS)}")
