"""Find what a caption repeats of the template or the prompt that it was asked with."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PROMPT_WORDS = 5
"""Words of a prompt, from its start, whose return in a caption is a leak."""


@cache
def leak_list() -> tuple[str, ...]:
    """Return the texts of captioning/corpus/leaks.txt."""
    lines = files("captioning.corpus").joinpath("leaks.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("# "))


def prompt_openings(prompts: Mapping[str, str]) -> dict[str, str]:
    """Return opening -> the names of the prompts that begin so: their first PROMPT_WORDS words, in small letters, of
    those that have as many before their first field in braces."""
    found: dict[str, list[str]] = {}
    for name, text in sorted(prompts.items()):
        words = text.partition("{")[0].lower().split()
        if len(words) >= PROMPT_WORDS:
            found.setdefault(" ".join(words[:PROMPT_WORDS]), []).append(name)
    return {opening: f"prompt {', '.join(names)}" for opening, names in found.items()}


class Leaks:
    """Counts captions by what leaked into them, with the first captions of each."""

    def __init__(self, prompts: Mapping[str, str], examples: int) -> None:
        openings = prompt_openings(prompts)
        self.names = {text: openings.get(text, text) for text in (*leak_list(), *openings)}
        self.most = examples
        self.counts = dict.fromkeys(self.names.values(), 0)
        self.uids: dict[str, list[bytes]] = {name: [] for name in self.counts}
        self.captions = 0
        """Captions with a leak of any kind."""
        self._any = "|".join(_pattern(text) for text in self.names)

    def add(self, texts: pa.Array, uids: pa.Array) -> None:
        """Count captions, none of them null."""
        hits = np.flatnonzero(pc.match_substring_regex(texts, self._any).to_numpy(zero_copy_only=False))
        self.captions += len(hits)
        for row in hits.tolist():
            self._count(texts[row].as_py(), uids[row].as_py())

    def _count(self, text: str, uid: bytes) -> None:
        for name in {name for sought, name in self.names.items() if _holds(text, sought)}:
            self.counts[name] += 1
            if len(self.uids[name]) < self.most:
                self.uids[name].append(uid)

    def found(self) -> Iterable[tuple[str, int, list[bytes]]]:
        """Return (what leaked, captions, examples), the most frequent first."""
        hit = [(name, count, self.uids[name]) for name, count in self.counts.items() if count]
        return sorted(hit, key=lambda one: (-one[1], one[0]))


def _is_cased(text: str) -> bool:
    return text != text.lower()


def _pattern(text: str) -> str:
    """Return a pattern of RE2."""
    blanks = r"\s+".join(re.escape(word) for word in text.split())
    return blanks if _is_cased(text) else f"(?i:{blanks})"


def _holds(text: str, sought: str) -> bool:
    line = " ".join(text.split())
    return sought in (line if _is_cased(sought) else line.lower())
