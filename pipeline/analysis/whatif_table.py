"""Print two funnels side by side: what became of the rows, and what would become of them."""

from collections.abc import Iterator

from pipeline.analysis.whatif import Answer
from pipeline.analysis.whatif_captions import CaptionFunnel
from pipeline.recipes.schema import Recipe


def lines(answer: Answer, recipe: Recipe) -> Iterator[str]:
    """Yield the lines of a whatif answer. A figure that is a bound says so."""
    now, then = answer.now, answer.then
    least = ">= " if answer.open else ""
    yield f"whatif: {recipe.root}"
    yield from (f"  {change}" for change in answer.changed or ["the rules are those of the run"])
    yield f"\n  {'':<24}{'now':>12}{'':>8}{'then':>14}{'':>8}{'difference':>14}"
    yield _row("rows in", now.rows_in, then.rows_in, now.rows_in)
    yield _row("kept", now.kept, then.kept, now.rows_in, least)
    for name in dict.fromkeys((*now.tiers, *then.tiers)):
        size = f" {recipe.tier[name].size} px" if name in recipe.tier else ""
        yield _row(f"  {name}{size}", now.tiers.get(name, 0), then.tiers.get(name, 0), now.rows_in, least)
    yield _row("dropped", sum(now.dropped.values()), sum(then.dropped.values()), now.rows_in)
    for reason in sorted(
        {*now.dropped, *then.dropped}, key=lambda name: (-now.dropped.get(name, 0), -then.dropped.get(name, 0), name)
    ):
        mark = "~" if reason in answer.moved else ""
        yield _row(f"  {reason}", now.dropped.get(reason, 0), then.dropped.get(reason, 0), now.rows_in, mark)
    if answer.open:
        yield _row("never fetched", 0, sum(answer.open.values()), now.rows_in)
    for name, funnel in answer.captions.items():
        yield from _captions(name, funnel)
    yield ""
    yield from _says(answer)


def _says(answer: Answer) -> Iterator[str]:
    if answer.open:
        total = sum(answer.open.values())
        named = ", ".join(f"{count:,} dropped now as {reason}" for reason, count in answer.open.items())
        yield (
            f"  {total:,} rows might come in that were never fetched ({named}); nobody can say how many of them would"
            " survive."
        )
        for name, most in answer.most.items():
            least = answer.then.kept if name == "kept" else answer.then.tiers[name]
            yield f"  {name}: from {least:,} (none of them survives) to {most:,} (all of them pass what is unknown)"
    if answer.moved:
        named = ", ".join(f"{count:,} of {reason}" for reason, count in answer.moved.items())
        yield f"  ~ {named}: dropped for certain, but maybe by an earlier rule: their values were not kept."
    if waits := sum(funnel.open for funnel in answer.captions.values()):
        yield f"  {waits:,} pictures would be asked about a second time, and nobody can say what would be answered."
    yield from (f"  note: {note}" for note in answer.notes)
    yield (
        "  These are the figures that a run with these rules would give."
        if answer.exact
        else f"  To know, run it: pipeline run --stage {'filter' if answer.open or answer.moved else 'caption'}."
    )


def _captions(captioner: str, funnel: CaptionFunnel) -> Iterator[str]:
    """Yield what becomes of a captioner's captions: those that count, what is dropped, flags, actions, origins."""
    now, then = funnel.now, funnel.then
    least = ">= " if funnel.open else ""
    yield ""
    yield _row(f"captions of {captioner}", now.captions, then.captions, now.pictures, least)
    for reason in dict.fromkeys((*now.dropped, *then.dropped)):
        yield _row(f"  {reason}", now.dropped.get(reason, 0), then.dropped.get(reason, 0), now.pictures, least)
    if funnel.open:
        yield _row("  to be asked again", 0, funnel.open, now.pictures)
    for what in ("flags", "actions", "origins"):
        before, after = getattr(now, what), getattr(then, what)
        for one in dict.fromkeys((*before, *after)):
            yield _row(f"  {what[:-1]} {one}", before.get(one, 0), after.get(one, 0), now.pictures, least)


def _row(name: str, now: int, then: int, whole: int, mark: str = "") -> str:
    """Return one line; `mark` stands before the figure that is a bound."""

    def share(count: int) -> str:
        return f"{100 * count / whole:>6.2f}%" if whole else ""

    shown = f"{mark}{then:,}"
    change = then - now
    return f"  {name:<24}{now:>12,}{share(now):>8}{shown:>14}{share(then):>8}{f'{change:+,}' if change else '':>14}"
