"""Evaluate rules on stored values: a code per row, whose names stand in one table of reasons."""

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
EXACT = "exact_duplicate"
REMOVED = "removed"
NEAR = "near_duplicate"
MARKS = (REMOVED, "placeholder", "in_eval_set", NEAR)
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
    """Return the table of reasons that codes are places in: `missing_value`, the marks, then the rules by name."""
    named = [rule.name for rule in (*rules.everywhere, *(rule for tier in rules.tiers.values() for rule in tier))]
    return tuple(dict.fromkeys((MISSING, *MARKS, *named)))


def verdicts_of(rules: RuleSet, batch: pa.RecordBatch, settled: frozenset[str] = frozenset()) -> Verdicts:
    """Return rows' verdicts: the first failing rule of [filter], else, where no tier takes the row, that of the first
    tier.

    A null that a rule needs is `missing_value`. Rules of [filter] named in `settled` are known to pass.
    """
    reasons = reasons_of(rules)
    code = first_failure([rule for rule in rules.everywhere if rule.name not in settled], batch, reasons)
    failures = [first_failure(tier, batch, reasons) for tier in rules.tiers.values()]
    tiers = np.zeros(batch.num_rows, np.uint64)
    for place, failure in enumerate(failures):
        tiers |= (failure == PASSES).astype(np.uint64) << np.uint64(place)
    return Verdicts(np.where((code == PASSES) & (tiers == 0), failures[0], code), tiers)


def first_failure(
    rules: Sequence[Filter], batch: pa.RecordBatch, reasons: Sequence[str], fillable: Set[str] = frozenset()
) -> Numbers:
    """Return per row (int16) the place in `reasons` of the first rule that fails, of MISSING where its verdict is null,
    PASSES where none does.

    A null verdict passes for the time being when one of the rule's columns is fillable. A rule is evaluated on the rows
    that pass those before it.

    select, decide and whatif ask this; why and forecast ask `evaluate` instead, since they show every rule's verdict on
    every row and not the first failure alone.
    """
    code = np.full(batch.num_rows, PASSES, np.int16)
    rows = np.arange(batch.num_rows)
    for rule in rules:
        passes, null = evaluate(rule, _rows(batch, rule.inputs, rows))
        if not fillable.isdisjoint(rule.inputs):
            passes = passes | null
        fails = ~passes
        code[rows[fails]] = np.where(null[fails], reasons.index(MISSING), reasons.index(rule.name))
        rows = rows[passes]
    return code


def _rows(batch: pa.RecordBatch, columns: Sequence[str], rows: Numbers) -> pa.RecordBatch:
    """Return the rows that no rule before has dropped, and of their columns those that the rule reads."""
    some = batch.select(list(columns))
    return some if len(rows) == batch.num_rows else some.take(pa.array(rows))


def evaluate(rule: Filter, batch: pa.RecordBatch) -> tuple[Numbers, Numbers]:
    """Return a rule's verdict as two arrays of bool: passes, and null."""
    verdict = rule.keep(batch)
    return flags(pc.fill_null(verdict, False)), flags(pc.is_null(verdict))


def marked(code: Numbers, marks: pa.Array, reasons: Sequence[str]) -> Numbers:
    """Return the codes with a mark's reason where a marked row passes; `removed` beats the rules."""
    for mark in MARKS:
        here = flags(pc.fill_null(pc.equal(marks, mark), False))
        code = np.where(here & ((code == PASSES) | (mark == REMOVED)), np.int16(reasons.index(mark)), code)
    return code


def names_of(code: Numbers, reasons: Sequence[str]) -> pa.StringArray:
    """Return the names of codes, null where the row passes."""
    return pa.array(reasons, pa.string()).take(pa.array(code, mask=code < 0))


def codes_of(names: pa.Array, reasons: Sequence[str]) -> Numbers:
    """Return the codes (int16) of names, PASSES for null. Raises KeyError for a name that is not in `reasons`."""
    coded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    places = {name: place for place, name in enumerate(reasons)}
    table = np.array([*(places[name] for name in coded.dictionary.to_pylist()), PASSES], np.int16)
    codes: Numbers = table[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]
    return codes


def final_fates(rows: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return (reason, step whose reason it is) of input rows, null and null where kept.

    Columns: `selected`, the reason of select; `planned`, false for a later row of a uid; `mark`; `fault`, of
    `fault_step` (fetch or score); `evaluated`, the reason of decide. `removed` beats all, else the earliest step's
    reason stands.
    """
    removed = pc.fill_null(pc.equal(rows["mark"], REMOVED), False)
    cases = pc.make_struct(
        removed, pc.is_valid(rows["selected"]), pc.invert(rows["planned"]), pc.is_valid(rows["fault"])
    )
    reason = pc.case_when(cases, REMOVED, rows["selected"], EXACT, rows["fault"], rows["evaluated"])
    by_fault = pc.fill_null(pc.equal(rows["fault"], REMOVED), False)
    decided = pc.if_else(pc.is_valid(rows["evaluated"]), "decide", pa.scalar(None, pa.string()))
    of_removed = pc.if_else(by_fault, rows["fault_step"], "dedup")
    return reason, pc.case_when(cases, of_removed, "select", "fetch", rows["fault_step"], decided)


def flags(array: pa.Array | pa.ChunkedArray) -> Numbers:
    """Return a boolean Arrow array without nulls as numpy bool."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    plain: Numbers = np.asarray(whole.to_numpy(zero_copy_only=False), dtype=bool)
    return plain
