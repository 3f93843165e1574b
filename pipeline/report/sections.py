"""Lay out the facts of a run as the sections of its page: all that the templates read."""

from collections.abc import Iterator
from dataclasses import dataclass

from manifests.reasons import by_group
from manifests.weights import WeightsFile
from pipeline.report.captions import CaptionsSection, captions_section
from pipeline.report.cards import Card, Dropped, Kept, dropped_cards, duplicate_cards, kept_cards
from pipeline.report.curve import Curve, draw_curve
from pipeline.report.facts import STEPS, Facts, Fates, Prediction
from pipeline.report.formats import percent
from pipeline.report.pictures import Picture, shrunk
from pipeline.report.planted import Planted
from pipeline.report.training import Memorised

MOSAIC_SIDE = 128
"""Long side of a tile, in pixels."""
MOSAIC_COLUMNS = 12
"""A mosaic is two lines of tiles, but no line is shorter than this where there are as many tiles."""
MOSAIC_LETTERS = 60
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class Mosaic:
    """Tiles in full lines of `columns`."""

    columns: int
    tiles: tuple[Picture, ...]


@dataclass(frozen=True)
class Figure:
    """One of the large numbers at the top. `tone`: `keep`, `drop` or nothing."""

    number: int
    words: str
    tone: str = ""


@dataclass(frozen=True)
class Head:
    """The top of the page. `digests`: stage -> the first letters of its digest."""

    name: str
    mosaic: Mosaic
    figures: tuple[Figure, ...]
    digests: dict[str, str]
    has_rows: bool


@dataclass(frozen=True)
class FunnelRow:
    """One step of the funnel: rows that are left and rows that it took, and both in percent of all rows."""

    name: str
    rest: int
    lost: int
    rest_percent: float
    lost_percent: float


@dataclass(frozen=True)
class Funnel:
    """The steps in the order of the chain, the files that could not be opened, and (signal, rows) of every refusal that
    was obeyed and (list, rows) of what lists of hashes named, the most frequent first."""

    rows: tuple[FunnelRow, ...]
    losses: tuple[str, ...]
    refusals: tuple[tuple[str, int], ...] = ()
    removed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class TierCurve:
    """The drawn loss of one tier."""

    tier: str
    curve: Curve


@dataclass(frozen=True)
class Page:
    """The whole page, in the order of its fields. A section that is None or empty is left out."""

    title: str
    head: Head
    funnel: Funnel | None
    predictions: tuple[Prediction, ...]
    kept: Kept | None
    planted: Planted | None
    dropped: Dropped | None
    duplicates: tuple[tuple[Card, ...], ...]
    captions: CaptionsSection | None
    memorised: tuple[Memorised, ...]
    sheets: tuple[Picture, ...]
    curves: tuple[TierCurve, ...]
    weights: tuple[WeightsFile, ...]
    has_stand_ins: bool
    attribution: str


def page_of(facts: Facts, attribution: str = "") -> Page:
    """Return the page of a run. `attribution`: the credits of its pictures, in Markdown, shown as plain text."""
    curves = [curve for curve in facts.training.curves if len(curve.points) > 1]
    return Page(
        title=f"Tessera: {facts.name}",
        head=_head(facts),
        funnel=_funnel(facts),
        predictions=facts.predictions,
        kept=kept_cards(facts),
        planted=facts.planted,
        dropped=dropped_cards(facts),
        duplicates=duplicate_cards(facts),
        captions=captions_section(facts.captions),
        memorised=facts.training.memorised,
        sheets=facts.training.sheets,
        curves=tuple(TierCurve(curve.tier, draw_curve(curve.points, curve.measured)) for curve in curves),
        weights=facts.stages.weights,
        has_stand_ins=facts.has_stand_ins,
        attribution=attribution.replace("# ", "", 1),
    )


def _head(facts: Facts) -> Head:
    digests = {stage: digest[:DIGEST_LETTERS] for stage, digest in facts.stages.digests.items() if digest}
    return Head(facts.name, _mosaic(facts), tuple(_figures(facts.fates)), digests, facts.fates.rows_in > 0)


def _figures(fates: Fates) -> Iterator[Figure]:
    share = f"{percent(fates.kept / fates.rows_in)} of the rows" if fates.rows_in else "none yet"
    yield Figure(fates.rows_in, "rows in")
    yield Figure(fates.kept, f"kept, {share}", "keep")
    yield Figure(sum(fates.dropped.values()), "dropped, each with a reason", "drop")
    yield from (Figure(rows, f"in tier {name}") for name, rows in fates.tiers.items())


def _mosaic(facts: Facts) -> Mosaic:
    rows = facts.examples.mosaic()
    columns = min(len(rows), max(MOSAIC_COLUMNS, len(rows) // 2))
    whole = rows[: len(rows) // max(columns, 1) * columns]
    return Mosaic(columns, tuple(Picture(shrunk(row.jpeg, MOSAIC_SIDE), row.text[:MOSAIC_LETTERS]) for row in whole))


def _funnel(facts: Facts) -> Funnel | None:
    """Return the funnel, None before the filter stage has given any row a fate."""
    if not facts.fates.rows_in:
        return None
    refusals, removed = (
        tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for counts in (facts.stages.refusals, facts.stages.removed)
    )
    return Funnel(tuple(_funnel_rows(facts.fates)), facts.stages.losses, refusals, removed)


def _funnel_rows(fates: Fates) -> Iterator[FunnelRow]:
    rest, whole = fates.rows_in, fates.rows_in
    yield FunnelRow("rows of the table", rest, 0, 100.0, 0.0)
    for group, lost in by_group(fates.dropped).items():
        rest -= lost
        yield FunnelRow(STEPS[group], rest, lost, 100 * rest / whole, 100 * lost / whole)
