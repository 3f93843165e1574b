"""Compare a run with what the demo planted in its data: the numbers that the report shows of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.ground_truth import (
    Agreement,
    Quality,
    Record,
    alignment_auc,
    fault_agreement,
    filter_quality,
    group_check,
    mark_recall,
)

ALIGNMENT = ("similarity", "conse")
"""Columns that should tell a picture's own words from swapped ones."""


@dataclass(frozen=True)
class MarkRecall:
    """Stock marks of one strength (`alpha` of 255): how many were found, of those that came as far."""

    alpha: int
    tiled: bool
    caught: int
    rows: int


@dataclass(frozen=True)
class Alignment:
    """How often a picture's own words beat swapped ones (`share` of 1), and of how many pictures on either side."""

    column: str
    share: float
    matched: int
    swapped: int


@dataclass(frozen=True)
class Planted:
    """The run against the truth table. `groups`: planted groups of duplicates of which any row came as far."""

    qualities: tuple[Quality, ...] = ()
    faults: tuple[Agreement, ...] = ()
    marks: tuple[MarkRecall, ...] = ()
    groups: int = 0
    single_survivors: int = 0
    alignments: tuple[Alignment, ...] = ()

    @property
    def right(self) -> int:
        """Return the rows whose fault got the reason that the design names."""
        return sum(fault.right for fault in self.faults)

    @property
    def certain(self) -> int:
        """Return the rows that were planted with a fault whose reason is certain."""
        return sum(fault.rows for fault in self.faults)


def compare(rows: Sequence[Record]) -> Planted:
    """Return the numbers of `rows`: the truth's rows joined with the final ledger."""
    groups = [group for group in group_check(rows) if group.kept + group.near_duplicate]
    aucs = [(column, alignment_auc(rows, column)) for column in ALIGNMENT]
    return Planted(
        tuple(filter_quality(rows)),
        tuple(fault_agreement(rows)),
        tuple(MarkRecall(*mark) for mark in mark_recall(rows)),
        len(groups),
        sum(group.kept == 1 for group in groups),
        tuple(Alignment(column, *auc) for column, auc in aucs if auc),
    )
