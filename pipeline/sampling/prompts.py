"""Read what is to be drawn: prompts or classes from words, a text file, or a table such as PartiPrompts."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

COLUMN = "Prompt"
"""The column of a table that holds prompts: PartiPrompts.tsv has Prompt, Category, Challenge, Note."""
CLASSES = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class PromptError(ValueError):
    """What is asked for cannot be drawn; the message says what was got and what is wanted."""


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: the column "Prompt" of a table with tabs, else its lines; empty ones are left out.

    A table is told by its name (.tsv) or by a first line with a tab. Raises PromptError for a file that is not there,
    is no UTF-8, has no such column, or no prompt.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            table = path.suffix.lower() == ".tsv" or "\t" in first
            lines = _column(path, csv.DictReader(file, delimiter="\t")) if table else list(file)
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is no UTF-8 text (byte {error.start}): wanted a prompt a line, or a .tsv") from error
    except (OSError, csv.Error) as error:
        raise PromptError(f"prompts: {path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise PromptError(f"{path} holds no prompt: wanted one a line, or a .tsv with a column {COLUMN!r}")
    return found


def _column(path: Path, rows: "csv.DictReader[str]") -> list[str]:
    names = rows.fieldnames or []
    if COLUMN not in names:
        raise PromptError(f"{path} has the columns {', '.join(names) or 'none'}; wanted one called {COLUMN!r}")
    return [row[COLUMN] or "" for row in rows]


def read_classes(words: Sequence[str], classes: int) -> list[str]:
    """Return class numbers, as texts, of numbers and ranges such as `0-9`, both ends included; commas part them too.

    Raises PromptError for what is neither, and for a class outside 0..classes - 1.
    """
    found: list[str] = []
    for whole, word in ((text, part) for text in words for part in re.split(r"[\s,]+", text) if part):
        match = CLASSES.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < classes:
            raise PromptError(
                f"{whole!r} is no class of these weights, which draw {classes:,} classes and no texts: wanted numbers"
                f" from 0 to {classes - 1}, or ranges such as 0-9"
            )
        found += map(str, range(first, last + 1))
    return found
