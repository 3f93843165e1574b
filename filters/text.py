"""Keep texts that are long enough to say something and short enough to be a caption."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Rule, register

WORD = r"[^\s\x0B\x1C-\x1F\x{85}\p{Z}]+"
"""A run of characters between white space, as Python's str.split() sees it: RE2's own \\s is that of ASCII, and knows
neither the no-break nor the ideographic space."""


@register("text")
@dataclass(frozen=True, kw_only=True)
class Text(Rule):
    """Bounds on the length of the text, outer white space left out."""

    inputs = ("text",)

    min_words: int = 3
    """Runs of characters between white space; languages without spaces want 1 here. The defaults are DataComp's."""
    min_chars: int = 6
    """Characters, kept when equal."""
    max_chars: int | None = None
    """Characters, kept when equal; none: no bound."""

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Count words and characters."""
        text = pc.utf8_trim_whitespace(batch.column("text"))
        chars, words = pc.utf8_length(text), pc.count_substring_regex(text, pattern=WORD)
        kept = pc.and_(pc.greater_equal(words, self.min_words), pc.greater_equal(chars, self.min_chars))
        return kept if self.max_chars is None else pc.and_(kept, pc.less_equal(chars, self.max_chars))
