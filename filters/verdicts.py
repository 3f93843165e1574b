"""Judge stored values by rules and choose one survivor per cluster: the judgement that decide and whatif share."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter

Numbers = np.ndarray[Any, np.dtype[Any]]
PASSES = -1
MISSING = "missing_value"
NEAR = "near_duplicate"
MARKS = ("removed", "placeholder", "in_eval_set", NEAR)
"""Reasons of `ledger/marks.parquet`, by precedence. `removed` beats every other reason, the others come after the
rules.

`near_duplicate` is the mark of a picture whose twin was kept and then removed.
"""


@dataclass(frozen=True)
class RuleSet:
    """The recipe's filters: those of [filter], then those of each tier in the recipe's order."""

    everywhere: tuple[Filter, ...]
    tiers: dict[str, tuple[Filter, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return every column that a rule reads, in order of first use."""
        rules = [*self.everywhere, *(rule for tier in self.tiers.values() for rule in tier)]
        return tuple(dict.fromkeys(column for rule in rules for column in rule.inputs))


@dataclass(frozen=True)
class Verdicts:
    """A verdict per row. `code`: int16, PASSES or a place in `reasons_of(rules)`; `tiers`: uint64, bit k where it
    passes the k-th tier."""

    code: Numbers
    tiers: Numbers

    @property
    def rank(self) -> Numbers:
        """Return the last tier that each row passes, -1 where none: later tiers of the recipe are better."""
        rank = np.full(len(self.tiers), -1, np.int16)
        for place in range(64):
            rank[(self.tiers >> np.uint64(place)) & np.uint64(1) == 1] = place
        return rank


def reasons_of(rules: RuleSet) -> tuple[str, ...]:
    """Return the reasons that a verdict may have: `missing_value`, the marks, `near_duplicate`, then the rules by
    name."""
    named = [rule.name for rule in (*rules.everywhere, *(rule for tier in rules.tiers.values() for rule in tier))]
    return tuple(dict.fromkeys((MISSING, *MARKS, NEAR, *named)))


def judge(rules: RuleSet, batch: pa.RecordBatch, settled: frozenset[str] = frozenset()) -> Verdicts:
    """Judge rows by all values: the first failing rule of [filter], else, where no tier takes the row, that of the
    first tier.

    A null that a rule needs is `missing_value`. Rules of [filter] named in `settled` are known to pass.
    """
    reasons = reasons_of(rules)
    code = first_failing([rule for rule in rules.everywhere if rule.name not in settled], batch, reasons)
    passed = np.zeros(batch.num_rows, np.uint64)
    for place, tier in enumerate(rules.tiers.values()):
        failing = first_failing(tier, batch, reasons)
        passed |= (failing == PASSES).astype(np.uint64) << np.uint64(place)
        if place == 0:
            first = failing
    code = np.where((code == PASSES) & (passed == 0), first, code)
    return Verdicts(code, passed)


def first_failing(
    rules: Sequence[Filter], batch: pa.RecordBatch, reasons: Sequence[str], fillable: frozenset[str] = frozenset()
) -> Numbers:
    """Return per row the place in `reasons` of the first rule that fails (of MISSING where its verdict is null), PASSES
    where none does.

    A null verdict passes for the time being when one of the rule's columns is fillable.
    """
    code = np.full(batch.num_rows, PASSES, np.int16)
    missing = reasons.index(MISSING)
    for rule in rules:
        passes, null = ask(rule, batch)
        passes = passes | null if fillable & {*rule.inputs} else passes
        here = np.where(null, np.int16(missing), np.int16(reasons.index(rule.name)))
        code = np.where((code == PASSES) & ~passes, here, code)
    return code


def ask(rule: Filter, batch: pa.RecordBatch) -> tuple[Numbers, Numbers]:
    """Return a rule's verdict as two arrays of bool: passes, and null."""
    verdict = rule.keep(batch)
    return flags(pc.fill_null(verdict, False)), flags(pc.is_null(verdict))


def flags(array: pa.Array | pa.ChunkedArray) -> Numbers:
    """Return a boolean Arrow array without nulls as numpy bool."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    made: Numbers = np.asarray(whole.to_numpy(zero_copy_only=False), dtype=bool)
    return made


def first_failure(rules: Sequence[Filter], batch: pa.RecordBatch, fillable: Set[str] = frozenset()) -> pa.StringArray:
    """Return per row the name of the first rule that fails, `missing_value` where its column is null, null where all
    pass.

    A null verdict passes for the time being when one of the rule's columns can still be filled.
    """
    first = np.full(batch.num_rows, -1, np.int16)
    left = np.arange(batch.num_rows)
    for number, rule in enumerate(rules):
        verdict = rule.keep(_rows(batch, rule.inputs, left))
        judged = pc.fill_null(verdict, True).to_numpy(zero_copy_only=False)
        unknown = pc.is_null(verdict).to_numpy(zero_copy_only=False)
        first[left[~judged]] = number
        if not any(column in fillable for column in rule.inputs):
            first[left[unknown]] = len(rules)
            judged = judged & ~unknown
        left = left[judged]
    names = pa.array([*(rule.name for rule in rules), "missing_value"], pa.string())
    return names.take(pa.array(first, mask=first < 0))


def _rows(batch: pa.RecordBatch, columns: Sequence[str], rows: np.ndarray) -> pa.RecordBatch:
    """Return the rows that no rule before has dropped, and of their columns those that the rule reads."""
    some = batch.select(list(columns))
    return some if len(rows) == batch.num_rows else some.take(pa.array(rows))
