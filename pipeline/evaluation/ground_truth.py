"""Measure a run against the truth table of the demo: precision and recall of each filter, reasons of faults,
duplicates.

How rows are counted for a filter: a row planted for it and dropped by it is *caught*; planted and kept is *missed*;
planted, but dropped by another rule (which came first, rightly or not), is *elsewhere* and counts for neither. A row
that the filter dropped without being planted for it is *wrong*: each planted row has one thing wrong with it and is
clean in every other respect. precision = caught / (caught + wrong), recall = caught / (caught + missed). Near
duplicates are counted by group, since any member may survive: of n members that came as far, n - 1 should go.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from manifests.reasons import group_of

NEAR = "near_duplicate"
SHOWN_FIRST = ("language", "watermark", "similarity", NEAR)
"""Filters that a model or a distance decides, shown first."""
TRUTH_COLUMNS = ("kind", "picture", "target", "exact", "group", "matched", "alpha", "tiled")
Record = Mapping[str, Any]


class TruthError(ValueError):
    """The run and the truth table do not speak of the same rows."""


@dataclass(frozen=True)
class Quality:
    """One filter against the truth, in rows; `elsewhere` = planted for it, dropped by another rule."""

    filter: str
    planted: int
    caught: int
    missed: int
    elsewhere: int
    wrong: int

    @property
    def precision(self) -> float | None:
        """Return caught / (caught + wrong), or None where the filter dropped nothing."""
        return self.caught / (self.caught + self.wrong) if self.caught + self.wrong else None

    @property
    def recall(self) -> float | None:
        """Return caught / (caught + missed), or None where nothing planted came as far."""
        return self.caught / (self.caught + self.missed) if self.caught + self.missed else None


@dataclass(frozen=True)
class Agreement:
    """One kind of planted fault: how many rows got the reason that the design names, and what the others got."""

    kind: str
    reason: str
    rows: int
    right: int
    others: dict[str, int]


@dataclass(frozen=True)
class Group:
    """One picture that was planted several times: what became of its rows."""

    group: str
    rows: int
    kept: int
    near_duplicate: int
    elsewhere: int


def joined(final: pa.Table, truth: pa.Table) -> list[dict[str, Any]]:
    """Return the truth's rows with `fate` and `reason` and every other column of the final ledger.

    Rows meet by (file name, row number). Raises TruthError for a truth row that the ledger lacks: each input row has a
    fate.
    """
    ledger = {(PurePosixPath(row["source"]).name, row["source_row"]): row for row in final.to_pylist()}
    rows = []
    for row in truth.to_pylist():
        fate = ledger.get((row["source"], row["source_row"]))
        if fate is None:
            raise TruthError(
                f"row {row['source_row']} of {row['source']} has no fate in the ledger of {len(ledger)} rows: another"
                " input?"
            )
        rows.append({**fate, **{name: row[name] for name in TRUTH_COLUMNS}, "text": row["text"]})
    return rows


def filter_quality(rows: Iterable[Record]) -> list[Quality]:
    """Return the quality of each filter that something was planted for: a model's filters first, then by name."""
    rows = list(rows)
    targets = {row["target"] for row in rows if row["target"] and is_filter(row["target"])}
    ordered = sorted(
        targets, key=lambda name: (SHOWN_FIRST.index(name) if name in SHOWN_FIRST else len(SHOWN_FIRST), name)
    )
    return [_near_quality(rows) if name == NEAR else _quality(rows, name) for name in ordered]


def is_filter(target: str) -> bool:
    """Tell whether a planted target is a filter's; faults of input, fetch and image are `fault_agreement`'s."""
    return group_of(target) in ("rules", "set")


def _quality(rows: list[Record], name: str) -> Quality:
    """Count one filter. Where a model judges, rows that an input value decides say nothing of it and stay out."""
    targeted = [row for row in rows if row["target"] == name]
    planted = [row for row in targeted if not row["exact"]] or targeted
    caught = sum(row["reason"] == name for row in planted)
    missed = sum(row["fate"] == "kept" for row in planted)
    wrong = sum(row["reason"] == name and row["target"] != name for row in rows)
    return Quality(name, len(planted), caught, missed, len(planted) - caught - missed, wrong)


def _near_quality(rows: list[Record]) -> Quality:
    groups = group_check(rows)
    caught = sum(
        min(group.near_duplicate, group.kept + group.near_duplicate - 1)
        for group in groups
        if group.kept + group.near_duplicate
    )
    missed = sum(max(0, group.kept - 1) for group in groups)
    planted = sum(row["target"] == NEAR for row in rows)
    strangers = sum(row["reason"] == NEAR and not row["group"] for row in rows)
    lost = sum(group.near_duplicate for group in groups) - caught  # groups of which not even one survived
    return Quality(NEAR, planted, caught, missed, max(0, planted - caught - missed), strangers + lost)


def group_check(rows: Iterable[Record]) -> list[Group]:
    """Return the planted groups of near duplicates, by name, with the fate of their rows."""
    members: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        if row["group"] and row["kind"] not in ("repeated", "exact-duplicate"):
            members[row["group"]].append(row)
    groups = []
    for name, group in sorted(members.items()):
        kept = sum(row["fate"] == "kept" for row in group)
        near = sum(row["reason"] == NEAR for row in group)
        groups.append(Group(name, len(group), kept, near, len(group) - kept - near))
    return groups


def fault_agreement(rows: Iterable[Record]) -> list[Agreement]:
    """Return, for each kind whose reason is certain, how many rows got it; in the order of the reasons' names."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["target"] and row["exact"]:
            seen[(row["target"], row["kind"])][row["reason"] or "kept"] += 1
    return [
        Agreement(
            kind,
            reason,
            counts.total(),
            counts[reason],
            {name: n for name, n in sorted(counts.items()) if name != reason},
        )
        for (reason, kind), counts in sorted(seen.items())
    ]


def alignment_auc(rows: Iterable[Record], column: str, source: str = "") -> tuple[float, int, int] | None:
    """Return (AUC, matched, swapped) of a score column: how often a picture's own words beat swapped ones, ties half.

    Unspoilt pictures against swapped ones; only values that this run computed count. `source`: "met" or "openmoji"
    alone. None where either side is empty.
    """
    sides: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        value = row.get(column)
        computed = row.get(f"{column}_origin") != "input"
        if (
            value is not None
            and row["matched"] is not None
            and computed
            and str(row["picture"]).startswith(source)
            and row["target"] != "language"
        ):
            sides[bool(row["matched"])].append(float(value))
    good, bad = sides[True], sides[False]
    if not good or not bad:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in bad)
    return wins / (len(good) * len(bad)), len(good), len(bad)


def mark_recall(rows: Iterable[Record]) -> list[tuple[int, bool, int, int]]:
    """Return (alpha of 255, tiled, caught, came as far) of the stock marks, weakest first."""
    cells: dict[tuple[int, bool], list[bool]] = defaultdict(list)
    for row in rows:
        if row["alpha"] is not None and (row["reason"] == "watermark" or row["fate"] == "kept"):
            cells[(row["alpha"], bool(row["tiled"]))].append(row["reason"] == "watermark")
    return [(alpha, tiled, sum(hits), len(hits)) for (alpha, tiled), hits in sorted(cells.items())]


def untested(rows: Iterable[Record]) -> dict[str, int]:
    """Return reason -> rows of the rules that dropped something although nothing was planted for them."""
    rows = list(rows)
    targets = {row["target"] for row in rows if row["target"]}
    counts = Counter(row["reason"] for row in rows if row["reason"] and row["reason"] not in targets)
    return dict(sorted(counts.items()))


def summary(final: pa.Table, truth: pa.Table) -> str:
    """Return what the demo prints: quality of the filters, agreement of the faults, duplicates, alignment."""
    rows = joined(final, truth)
    lines = ["filter            planted  caught  missed  elsewhere  wrong   precision  recall"]
    lines += [_quality_line(quality) for quality in filter_quality(rows)]
    agreements = fault_agreement(rows)
    right, total = sum(one.right for one in agreements), sum(one.rows for one in agreements)
    lines.append(f"planted faults with the reason that the design names: {right} of {total}")
    lines += [f"  {one.kind}: wanted {one.reason}, got {_said(one.others)}" for one in agreements if one.others]
    groups = [group for group in group_check(rows) if group.kept + group.near_duplicate]
    lines.append(f"duplicate groups with one survivor: {sum(group.kept == 1 for group in groups)} of {len(groups)}")
    for column in ("similarity", "conse"):
        auc = alignment_auc(rows, column)
        if auc:
            lines.append(
                f"{column}: own words beat swapped ones in {auc[0]:.0%} of pairs (AUC; {auc[1]} pictures against"
                f" {auc[2]})"
            )
    others = untested(rows)
    if others:
        lines.append(f"dropped by rules that the truth table says nothing of: {_said(others)}")
    return "\n".join(lines)


def _quality_line(one: Quality) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    counts = f"{one.planted:7}  {one.caught:6}  {one.missed:6}  {one.elsewhere:9}  {one.wrong:5}"
    return f"{one.filter:17} {counts}   {share(one.precision):>9}  {share(one.recall):>6}"


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} x{n}" for name, n in counts.items())


def quality_table(rows: Iterable[Record]) -> pa.Table:
    """Return `filter_quality` as a table with precision and recall (null where undefined)."""
    return pa.Table.from_pylist(
        [{**asdict(one), "precision": one.precision, "recall": one.recall} for one in filter_quality(rows)]
    )
