"""Count which groups of people texts name: in the alt text and in the caption of a picture, and among kept rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from captioning.corpus.intervals import (
    Difference,
    Mean,
    Share,
    mean,
    mean_difference,
    paired_difference,
    share,
    share_difference,
)
from captioning.corpus.terms import Found, Terms
from captioning.corpus.words import Words

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TermCount:
    """One term: texts that hold it, before and after, and of those before the ones that have lost it."""

    term: str
    alt: int
    caption: int
    removed: Share


@dataclass(frozen=True)
class Mention:
    """One group in alt texts and captions of the same pictures.

    `alt`, `caption`: of all pictures with both; `top_caption`: of those with one. `removed`: of the alt texts that name
    it, the captions that do not; `kept`: those that do; `added`: of the alt texts that do not name it, the captions
    that do. `change`: caption less alt. `examples`: uids in hex.
    """

    axis: str
    group: str
    alt: Share
    caption: Share
    top_caption: Share
    kept: Share
    removed: Share
    added: Share
    change: Difference
    apart: bool
    terms: tuple[TermCount, ...] = ()
    examples: dict[str, list[str]] = field(default_factory=dict)


class Mentions:
    """Counts groups over batches of pictures that have an alt text and a caption."""

    def __init__(self, terms: Terms, examples: int) -> None:
        self.terms, self.most = terms, examples
        self.rows = self.top_rows = 0
        self._groups = {name: np.zeros(len(terms.groups), np.int64) for name in ("alt", "caption", "both", "top")}
        self._terms = {name: np.zeros(len(terms.terms), np.int64) for name in ("alt", "caption", "both")}
        self._uids: dict[tuple[str, int], list[str]] = {}

    def add(self, alt: Words, caption: Words, uids: pa.Array) -> None:
        """Count pictures by the words of both texts."""
        self.rows += len(alt)
        said = {"alt": self.terms.find(alt), "caption": self.terms.find(caption)}
        self._count(self._terms, said)
        groups = {name: self._grouped(found) for name, found in said.items()}
        self._count(self._groups, groups)
        for name, one, other in (("removed", "alt", "caption"), ("added", "caption", "alt")):
            alone = np.setdiff1d(groups[one].codes, groups[other].codes, assume_unique=True)
            self._note(name, alone, uids)

    def add_top(self, top_caption: Words) -> None:
        """Count the captions that came with the input."""
        self.top_rows += len(top_caption)
        self._groups["top"] += self._grouped(self.terms.find(top_caption)).counts()

    def _grouped(self, found: Found) -> Found:
        return found.mapped(self.terms.group_of, len(self.terms.groups))

    def _count(self, counts: dict[str, Numbers], said: dict[str, Found]) -> None:
        for name, found in said.items():
            counts[name] += found.counts()
        both = np.intersect1d(said["alt"].codes, said["caption"].codes, assume_unique=True)
        kinds = said["alt"].kinds
        counts["both"] += np.bincount(both % max(kinds, 1), minlength=kinds)

    def _note(self, name: str, codes: Numbers, uids: pa.Array) -> None:
        """Note the first pictures of each group."""
        kinds = max(len(self.terms.groups), 1)
        for group in np.unique(codes % kinds).tolist():
            noted = self._uids.setdefault((name, group), [])
            if len(noted) < self.most:
                rows = (codes[codes % kinds == group] // kinds)[: self.most - len(noted)]
                noted += [uids[row].as_py().hex() for row in rows.tolist()]

    def facts(self) -> list[Mention]:
        """Return the groups that any text names, in the order of the lists."""
        made = [self._mention(number) for number in range(len(self.terms.groups))]
        return [one for one in made if one.alt.hits or one.caption.hits or one.top_caption.hits]

    def _mention(self, number: int) -> Mention:
        alt, caption, both, top = (int(self._groups[name][number]) for name in ("alt", "caption", "both", "top"))
        change = paired_difference(caption - both, alt - both, self.rows)
        return Mention(
            *self.terms.groups[number],
            alt=share(alt, self.rows),
            caption=share(caption, self.rows),
            top_caption=share(top, self.top_rows),
            kept=share(both, alt),
            removed=share(alt - both, alt),
            added=share(caption - both, self.rows - alt),
            change=change,
            apart=change.apart,
            terms=tuple(self._terms_of(number)),
            examples={name: self._uids.get((name, number), []) for name in ("removed", "added")},
        )

    def _terms_of(self, number: int) -> Iterator[TermCount]:
        """Yield those terms of a group that any text holds."""
        for place in np.flatnonzero(self.terms.group_of == number).tolist():
            alt, caption, both = (int(self._terms[name][place]) for name in ("alt", "caption", "both"))
            if alt or caption:
                yield TermCount(self.terms.terms[place].text, alt, caption, share(alt - both, alt))


@dataclass(frozen=True)
class TermKept:
    """One term among the rows whose alt text is known: those that hold it, of the fetched ones the kept, and their mean
    score."""

    term: str
    rows: int
    kept: Share
    aesthetic: Mean


@dataclass(frozen=True)
class Kept:
    """One group among the rows whose alt text is known.

    `rows`: those that name it; `fetched`: of them, those whose picture came and could be opened, so that rules judged
    it. `kept`: of those, the kept ones; `others`: the same of rows that do not name it; `difference`: kept less others.
    `aesthetic`: mean score where there is one, with the same of the others. `apart`: an interval of a difference leaves
    0 out.
    """

    axis: str
    group: str
    rows: int
    kept: Share
    others: Share
    difference: Difference
    aesthetic: Mean
    aesthetic_others: Mean
    aesthetic_difference: Difference
    apart: bool
    terms: tuple[TermKept, ...] = ()
    examples: dict[str, list[str]] = field(default_factory=dict)


class KeptByGroup:
    """Counts groups over batches of rows of the ledger."""

    def __init__(self, terms: Terms, examples: int) -> None:
        self.terms, self.most = terms, examples
        self.rows = 0
        self._all = np.zeros(5)
        """Rows judged, kept, with a score, sum and sum of squares of the scores."""
        self._groups, self._terms = np.zeros((len(terms.groups), 5)), np.zeros((len(terms.terms), 5))
        self._named, self._held = np.zeros(len(terms.groups), np.int64), np.zeros(len(terms.terms), np.int64)
        self._uids: dict[int, list[str]] = {}

    def add(self, words: Words, judged: Numbers, kept: Numbers, scores: Numbers, uids: pa.Array) -> None:
        """Count rows: `judged`, `kept` bool, `scores` float with NaN where there is none."""
        self.rows += len(words)
        scored = judged & ~np.isnan(scores)
        values = np.where(scored, scores, 0.0)
        columns = np.stack([judged, judged & kept, scored, values, values**2], axis=1).astype(float)
        self._all += columns.sum(axis=0)
        held = self.terms.find(words)
        self._held += held.counts()
        np.add.at(self._terms, held.terms, columns[held.texts])
        found = held.mapped(self.terms.group_of, len(self.terms.groups))
        self._named += found.counts()
        np.add.at(self._groups, found.terms, columns[found.texts])
        dropped = (judged & ~kept)[found.texts]
        for row, group in zip(found.texts[dropped].tolist(), found.terms[dropped].tolist(), strict=True):
            noted = self._uids.setdefault(group, [])
            if len(noted) < self.most:
                noted.append(uids[row].as_py().hex())

    def facts(self) -> list[Kept]:
        """Return the groups that any text names, in the order of the lists."""
        return [self._kept(number) for number in np.flatnonzero(self._named).tolist()]

    def _kept(self, number: int) -> Kept:
        own, rest = self._groups[number], self._all - self._groups[number]
        (kept, score), (others, score_others) = _kept_and_score(own), _kept_and_score(rest)
        difference, score_difference = share_difference(kept, others), mean_difference(score, score_others)
        return Kept(
            *self.terms.groups[number],
            rows=int(self._named[number]),
            kept=kept,
            others=others,
            difference=difference,
            aesthetic=score,
            aesthetic_others=score_others,
            aesthetic_difference=score_difference,
            apart=difference.apart or score_difference.apart,
            terms=tuple(self._terms_of(number)),
            examples={"dropped": self._uids.get(number, [])},
        )

    def _terms_of(self, number: int) -> Iterator[TermKept]:
        """Yield those terms of a group that any text holds."""
        for place in np.flatnonzero((self.terms.group_of == number) & (self._held > 0)).tolist():
            yield TermKept(self.terms.terms[place].text, int(self._held[place]), *_kept_and_score(self._terms[place]))

    @property
    def kept_share(self) -> Share:
        """Return the kept rows of all that were judged."""
        return share(int(self._all[1]), int(self._all[0]))


def _kept_and_score(part: Numbers) -> tuple[Share, Mean]:
    """Return the kept share and the mean score that five sums tell."""
    return share(int(part[1]), int(part[0])), mean(int(part[2]), float(part[3]), float(part[4]))
