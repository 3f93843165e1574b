"""Lay out the audit of a run's captions as tables of words: what the page's section shows."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from captioning.corpus.bias import Kept, Mention
from manifests.files import FormatError
from pipeline.analysis.caption_audit import audit
from pipeline.analysis.caption_facts import Audit, CaptionerAudit, FilterAudit
from pipeline.analysis.caption_rows import caption_tables
from pipeline.analysis.caption_table import FEW, apart_says, change, percent, short

ROWS = 50_000
"""Captions of each captioner that a page looks at, of the first tables: it stays quick for a huge run."""
TOP = 6
GROUPS = 40
"""Groups of people that a table shows: those that are named most."""


@dataclass(frozen=True)
class Table:
    """A table: title, a line below it, the heads of its columns, and its cells; all but the first column are
    figures."""

    title: str
    says: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CaptionerPart:
    """One captioner: what stands beside its name, and its tables."""

    name: str
    says: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class CaptionsSection:
    """The section of the page. `notes`: what was not looked at."""

    captioners: tuple[CaptionerPart, ...]
    filter: Table | None
    notes: tuple[str, ...]


def read_captions(root: Path) -> Audit | None:
    """Return the audit of a run's first captions; none where it has no captions, or some cannot be read."""
    with contextlib.suppress(OSError, FormatError, duckdb.Error):
        return audit(root, top=TOP, most_rows=ROWS) if caption_tables(root) else None
    return None


def captions_section(found: Audit | None) -> CaptionsSection | None:
    """Return the section of an audit."""
    if found is None:
        return None
    parts = tuple(_part(one, found.by_chance) for one in found.captioners)
    return CaptionsSection(parts, _filter(found.filter, found.by_chance), found.notes)


def _part(one: CaptionerAudit, by_chance: float) -> CaptionerPart:
    says = f"{one.own:,} of {one.rows:,} rows have a caption in its own words"
    return CaptionerPart(one.captioner, says, tuple(table for table in _tables(one, by_chance) if table.rows))


def _tables(one: CaptionerAudit, by_chance: float) -> Iterator[Table]:
    fates = [*one.origins.items(), *one.dropped.items(), *((f"flag {name}", n) for name, n in one.flags.items())]
    yield Table("What became of them", "", ("", "rows"), tuple((name, f"{rows:,}") for name, rows in fates))
    repeats = one.repeats
    yield Table(
        "One caption beside several pictures",
        f"{repeats.texts:,} captions, together {percent(repeats.captions)} of all; pictures of one pHash count once",
        ("caption", "captions", "pictures"),
        tuple((short(row.text), f"{row.captions:,}", f"{row.pictures:,}") for row in repeats.top),
    )
    yield Table(
        "Eight words that come back",
        "names and numbers masked",
        ("words", "pictures", "of the captions"),
        tuple((short(run.text), f"{run.pictures:,}", percent(run.share)) for run in one.skeletons),
    )
    ends = [("begins", end) for end in one.openings] + [("ends", end) for end in one.closings]
    yield Table(
        "How captions begin and end",
        "",
        ("words", "", "of the captions"),
        tuple((short(end.text), how, percent(end.captions)) for how, end in ends),
    )
    yield Table(
        "Leaks of templates and prompts",
        f"{percent(one.leaked)} of the captions",
        ("text", "captions"),
        tuple((short(leak.what), f"{leak.captions:,}") for leak in one.leaks),
    )
    yield from _texts(one)
    named = _most(one.mentions, lambda group: max(group.alt.hits, group.caption.hits))
    yield Table(
        "Groups of people in alt text and caption",
        f"{one.compared:,} pictures with both. {apart_says(one.apart, len(one.mentions), by_chance)}",
        ("group", "alt", "caption", "removed of alt", "added", "caption less alt"),
        tuple(_mention(group) for group in named),
    )


def _texts(one: CaptionerAudit) -> Iterator[Table]:
    rows = []
    for kind, facts in one.lengths.items():
        words = one.vocabulary.get(kind)
        rich = f"{words.types:,} of {words.tokens:,}" if words else "-"
        spread = ", ".join(f"{number:,}" for number in facts.quantiles.values())
        rows.append((kind, f"{facts.texts:,}", f"{facts.mean:.1f}", spread, rich))
    heads = ("text", "texts", "mean words", "at 5, 25, 50, 75, 95 %", "different words")
    yield Table("Length and vocabulary", "", heads, tuple(rows))
    if one.languages is not None and one.languages.pictures:
        told = one.languages
        yield Table(
            "Language of alt text and caption",
            f"another one in {percent(told.changed)} of {told.pictures:,} sampled pictures",
            ("from, to", "pictures"),
            tuple((f"{first}, {then}", f"{count:,}") for first, then, count in told.shifts),
        )


def _most(groups: Iterable[Mention], size: Callable[[Mention], int]) -> list[Mention]:
    kept = sorted((group for group in groups if size(group) >= FEW), key=lambda group: -size(group))
    return kept[:GROUPS]


def _mention(one: Mention) -> tuple[str, ...]:
    mark = " *" if one.apart else ""
    counts = f"{one.alt.hits:,}", f"{one.caption.hits:,}"
    return f"{one.axis}: {one.group}{mark}", *counts, percent(one.removed), percent(one.added), change(one.change)


def _filter(one: FilterAudit, by_chance: float) -> Table | None:
    named = sorted((group for group in one.groups if group.kept.of >= FEW), key=lambda group: -group.kept.of)
    if not named:
        return None
    return Table(
        "Who is kept",
        f"By words of the alt text, of {one.judged.of:,} rows whose picture came; {percent(one.judged)} are kept."
        f" {apart_says(one.apart, 2 * len(one.groups), by_chance)}",
        ("group", "rows", "kept", "less the others", f"{one.score} less the others"),
        tuple(_kept(group) for group in named[:GROUPS]),
    )


def _kept(one: Kept) -> tuple[str, ...]:
    mark = " *" if one.apart else ""
    return (
        f"{one.axis}: {one.group}{mark}",
        f"{one.kept.of:,}",
        percent(one.kept),
        change(one.difference),
        change(one.aesthetic_difference, ""),
    )
