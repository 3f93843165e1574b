"""Print an audit of captions: the figures of each captioner, and which groups of people the filter keeps."""

from collections.abc import Iterator
from itertools import groupby

from captioning.corpus.bias import Kept, Mention
from captioning.corpus.intervals import Difference, Share
from pipeline.analysis.caption_facts import Audit, CaptionerAudit, FilterAudit

LETTERS = 72
"""Of a text."""
FEW = 5
"""Groups that fewer texts name are not printed; --json holds them."""


def lines(found: Audit, top: int) -> Iterator[str]:
    """Yield the lines of an audit; `top`: lines of each list, and groups of each axis."""
    yield f"audit captions: {found.run}"
    for one in found.captioners:
        yield from _captioner(one, top, found.by_chance)
    yield from _filter(found.filter, top, found.by_chance)
    yield from (f"  note: {note}" for note in found.notes)


def percent(one: Share) -> str:
    """Return a share with its interval."""
    return "-" if one.rate is None else f"{one.rate:.2%} ({one.low:.2%} to {one.high:.2%})"


def change(one: Difference, unit: str = " points") -> str:
    """Return a difference with its interval: of shares in percentage points."""
    times = 100 if unit else 1
    if one.value is None or one.low is None or one.high is None:
        return "-"
    return f"{times * one.value:+.2f}{unit} ({times * one.low:+.2f} to {times * one.high:+.2f})"


def short(text: str) -> str:
    """Return a text on one line of LETTERS letters, printable ones alone."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}\u2026"


def _captioner(one: CaptionerAudit, top: int, by_chance: float) -> Iterator[str]:
    yield f"\n{one.captioner}: {one.rows:,} rows, {one.own:,} captions in its own words"
    for name, counts in (("origin", one.origins), ("dropped", one.dropped), ("flag", one.flags)):
        yield from (f"  {name:<9} {what:<24}{rows:>12,}" for what, rows in counts.items())
    repeats = one.repeats
    yield (
        f"\n  captions that stand beside pictures of different pHash: {repeats.texts:,}, together"
        f" {percent(repeats.captions)} of all"
    )
    yield from (f"  {row.pictures:>10,} pictures  {row.example[:8]}  {short(row.text)}" for row in repeats.top)
    yield "\n  eight words over pictures of different pHash, names and numbers masked"
    for run in one.skeletons:
        more = f" (at most {run.missed:,} more)" if run.missed else ""
        yield f"  {run.pictures:>10,} pictures{more}  {run.example[:8]}  {short(run.text)}"
    for name, ends in (("openings", one.openings), ("closings", one.closings)):
        yield f"\n  {name}"
        yield from (f"  {end.captions.hits:>10,}  {percent(end.captions):<28}  {short(end.text)}" for end in ends)
    yield f"\n  leaks of templates and prompts: {percent(one.leaked)} of the captions"
    yield from (
        f"  {leak.captions:>10,}  {short(leak.what)}  {', '.join(u[:8] for u in leak.examples)}" for leak in one.leaks
    )
    yield from _texts(one)
    yield f"\n  groups of people in {one.compared:,} pictures with alt text and caption"
    yield from _mentions(one, top, by_chance)


def _texts(one: CaptionerAudit) -> Iterator[str]:
    yield f"\n  {'words':<12}{'texts':>12}{'mean':>8}" + "".join(
        f"{name:>7}" for name in ("5%", "25%", "50%", "75%", "95%")
    )
    for kind, facts in one.lengths.items():
        yield f"  {kind:<12}{facts.texts:>12,}{facts.mean:>8.1f}" + "".join(
            f"{n:>7,}" for n in facts.quantiles.values()
        )
    for kind, words in one.vocabulary.items():
        yield f"  {kind:<12}{words.types:>12,} different words among {words.tokens:,} ({words.per_token:.3f})"
    if (told := one.languages) is not None and told.pictures:
        yield f"  another language than the alt text: {percent(told.changed)} of {told.pictures:,} sampled pictures"
        yield from (f"  {count:>10,}  {first} -> {then}" for first, then, count in told.shifts)


def _mentions(one: CaptionerAudit, top: int, by_chance: float) -> Iterator[str]:
    if not one.compared:
        return
    yield f"  {'':<30}{'alt':>9}{'caption':>9}  {'removed of alt':<27}{'added':<27}caption less alt"
    for axis, groups in groupby(one.mentions, lambda group: group.axis):
        yield f"  {axis}"
        yield from (_mention(group) for group in _most(list(groups), top))
    yield "  " + apart_says(one.apart, len(one.mentions), by_chance)


def _most(groups: list[Mention], top: int) -> list[Mention]:
    named = [group for group in groups if max(group.alt.hits, group.caption.hits) >= FEW]
    return sorted(named, key=lambda group: -max(group.alt.hits, group.caption.hits))[:top]


def _mention(one: Mention) -> str:
    mark = "*" if one.apart else " "
    return (
        f"  {mark} {one.group:<28}{one.alt.hits:>9,}{one.caption.hits:>9,}  {percent(one.removed):<27}"
        f"{percent(one.added):<27}{change(one.change)}"
    )


def apart_says(apart: int, intervals: int, by_chance: float) -> str:
    """Return what the mark of a group means."""
    return (
        f"* {apart:,} groups: the interval of a difference leaves 0 out; chance alone does that to about"
        f" {intervals * by_chance:.1f}"
    )


def _filter(one: FilterAudit, top: int, by_chance: float) -> Iterator[str]:
    yield (
        f"\nfilter: {one.rows:,} rows with a known alt text; of {one.judged.of:,} whose picture came"
        f" {percent(one.judged)} are kept"
    )
    if not one.groups:
        return
    head = f"{'kept':<27}{'less the others':<34}{one.score} less the others"
    yield f"  {'by terms in the alt text':<30}{'judged':>9}  {head}"
    for axis, groups in groupby(one.groups, lambda group: group.axis):
        yield f"  {axis}"
        named = sorted((group for group in groups if group.kept.of >= FEW), key=lambda group: -group.kept.of)
        yield from (_kept(group) for group in named[:top])
    yield "  " + apart_says(one.apart, 2 * len(one.groups), by_chance)


def _kept(one: Kept) -> str:
    mark = "*" if one.apart else " "
    return (
        f"  {mark} {one.group:<28}{one.kept.of:>9,}  {percent(one.kept):<27}{change(one.difference):<34}"
        f"{change(one.aesthetic_difference, '')}"
    )
