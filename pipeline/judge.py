"""Judge stored values by rules and choose one survivor per cluster: the judgement that decide and whatif share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter
from pipeline.recipes.rules import RuleSet

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


@dataclass(frozen=True)
class Contest:
    """Rows that pass, bear no mark and have twins. cluster, uid: (n, 2) halves; aesthetic: NaN, pixels: -1 where
    unknown."""

    cluster: Numbers
    uid: Numbers
    rank: Numbers
    aesthetic: Numbers
    pixels: Numbers

    @classmethod
    def of(cls, batch: pa.RecordBatch | pa.Table, rank: Numbers) -> "Contest":
        """Take the columns cluster, uid, width, height and the aesthetic scores that there are."""
        scores = [batch[name] for name in ("aesthetic_v2", "aesthetic_v1") if name in batch.schema.names]
        best = numbers(pc.coalesce(*scores), np.float32) if scores else np.full(batch.num_rows, np.nan, np.float32)
        pixels = pc.fill_null(pc.multiply(batch["width"].cast(pa.int64()), batch["height"].cast(pa.int64())), -1)
        return cls(halves(batch["cluster"]), halves(batch["uid"]), rank, best, numbers(pixels, np.int64))

    def losers(self) -> Numbers:
        """Return true for every row that is not the best of its cluster by (tier, aesthetic, pixels, smallest uid)."""
        lost = np.ones(len(self.rank), bool)
        if not len(lost):
            return lost
        unknown = np.isnan(self.aesthetic)
        worth = np.where(unknown, 0, -self.aesthetic)
        keys = (
            self.uid[:, 1],
            self.uid[:, 0],
            -self.pixels,
            worth,
            unknown,
            -self.rank,
            self.cluster[:, 1],
            self.cluster[:, 0],
        )
        order = np.lexsort(keys)
        sorted_clusters = self.cluster[order]
        first = np.concatenate([[True], np.any(sorted_clusters[1:] != sorted_clusters[:-1], axis=1)])
        lost[order[first]] = False
        return lost


def numbers(array: pa.Array | pa.ChunkedArray, kind: Any) -> Numbers:
    """Return an Arrow array of numbers in numpy; a null of floats is NaN."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    made: Numbers = np.asarray(whole.to_numpy(zero_copy_only=False), dtype=kind)
    return made


def halves(array: pa.Array | pa.ChunkedArray) -> Numbers:
    """Return 16-byte values as (n, 2) unsigned halves that sort as the bytes do; a null's halves are undefined."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    fixed = whole if pa.types.is_fixed_size_binary(whole.type) else whole.cast(pa.binary(16))
    raw = np.frombuffer(fixed.buffers()[1] or b"", dtype=">u8")[: 2 * (fixed.offset + len(fixed))]
    made: Numbers = raw.reshape(-1, 2)[fixed.offset :].astype(np.uint64)
    return made
