"""Ask select's rules again: which rows other rules would drop before the fetch, and which they might let in."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter
from filters.verdicts import MISSING, PASSES, Numbers, codes_of, evaluate, first_failure, flags
from pipeline.analysis.stored_run import Shard, typed

IN, OUT, MAY = 0, 1, 2
"""What other rules do with a row at select: let it in, drop it, or nobody can say without its values."""


@dataclass(frozen=True)
class Reselect:
    """The rules of [filter] as they were and as they are asked; `fillable`: columns that a later step can fill."""

    before: tuple[Filter, ...]
    then: tuple[Filter, ...]
    fillable: frozenset[str]
    reasons: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Tell whether select would do anything else."""
        return self.before != self.then

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the asked rules read."""
        return tuple(dict.fromkeys(column for rule in self.then for column in rule.inputs))

    def evaluate(self, shard: Shard) -> "Selected":
        """Evaluate the rules on a shard's rows again, from the values that `ledger/select` holds."""
        table = shard.selected(["reason", *self.columns])
        batch = typed(table, self.columns)
        reason = table["reason"].combine_chunks()
        passed = flags(pc.is_null(reason))
        code = np.full(len(passed), PASSES, np.int16)
        if self.columns:
            code[passed] = first_failure(self.then, batch.filter(pa.array(passed)), self.reasons, self.fillable)
        state = np.where(code == PASSES, IN, OUT).astype(np.int8)
        moved = np.zeros(len(passed), bool)
        ruled = {rule.name for rule in self.before} | {MISSING}
        dropped = ~passed & flags(pc.is_in(reason, value_set=pa.array(sorted(ruled))))
        code[~passed] = codes_of(reason.filter(pa.array(~passed)), self.reasons)
        state[~passed] = OUT
        if dropped.any():
            again = self._dropped(batch.filter(pa.array(dropped)), reason.filter(pa.array(dropped)), shard.held())
            code[dropped], state[dropped], moved[dropped] = again
        return Selected(code, state, moved, passed)

    def _dropped(
        self, batch: pa.RecordBatch, reason: pa.Array, held: frozenset[str]
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return (reason's place, state, whether the reason may be an earlier rule) of rows that a rule had dropped."""
        old = codes_of(reason, self.reasons)
        code, done, unsure = old.copy(), np.zeros(len(old), bool), np.zeros(len(old), bool)
        for rule in self.then:
            fails, unknown, null = self._verdict(rule, batch, reason, held)
            hit = fails & ~done
            named = np.where(null, self.reasons.index(MISSING), self.reasons.index(rule.name))
            code = np.where(hit & ~unsure, named, code).astype(np.int16)
            done |= hit
            unsure |= unknown & ~done
        lost = flags(pc.equal(reason, MISSING)) & ~done & self._still_missing(held)
        done |= lost
        return code, np.where(done, OUT, np.where(unsure, MAY, IN)).astype(np.int8), done & unsure

    def _verdict(
        self, rule: Filter, batch: pa.RecordBatch, reason: pa.Array, held: frozenset[str]
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return (fails, unknown, is null) of one rule for rows that a rule had dropped."""
        rows = batch.num_rows
        if held >= {*rule.inputs}:
            passes, null = evaluate(rule, batch)
            later = bool(self.fillable & {*rule.inputs})
            return (~passes & ~(null & later)), np.zeros(rows, bool), null
        fails, unknown = np.zeros(rows, bool), np.zeros(rows, bool)
        for name in {*reason.unique().to_pylist()}:
            here = flags(pc.equal(reason, name))
            known = self._known(rule, name)
            fails |= here & (known is False)
            unknown |= here & (known is None)
        return fails, unknown, np.zeros(rows, bool)

    def _known(self, rule: Filter, reason: str) -> bool | None:
        """Tell whether a row that was dropped for `reason` passes this rule: it passed the rules before that one, and
        failed it."""
        places = {old.name: place for place, old in enumerate(self.before)}
        if reason not in places or rule.name not in places:
            return None
        old = self.before[places[rule.name]]
        if places[rule.name] < places[reason]:
            return True if old == rule or stricter(rule, old) else None
        if places[rule.name] == places[reason]:
            return False if old == rule or stricter(old, rule) else None
        return None

    def _still_missing(self, held: frozenset[str]) -> bool:
        """Tell whether a row whose value was missing is still without it: the rules that nothing can fill read what
        they read."""
        then = {(rule.name, rule.inputs) for rule in self.then}
        asked = [rule for rule in self.before if not self.fillable & {*rule.inputs}]
        return all((rule.name, rule.inputs) in then for rule in asked) and not all(
            held >= {*rule.inputs} for rule in asked
        )


@dataclass(frozen=True)
class Selected:
    """Of each row: the place of its reason, IN, OUT or MAY, whether its reason may be an earlier rule, and whether it
    was let in before."""

    code: Numbers
    state: Numbers
    moved: Numbers
    before: Numbers


def stricter(loose: Filter, strict: Filter) -> bool:
    """Tell whether every row that fails `loose` fails `strict`: the same filter of ours, no `min…` lower, no `max…`
    higher."""
    if type(loose) is not type(strict) or not type(loose).__module__.startswith("filters.") or not is_dataclass(loose):
        return False
    return all(
        _no_looser(field.name, getattr(loose, field.name), getattr(strict, field.name)) for field in fields(loose)
    )


def _no_looser(name: str, loose: Any, strict: Any) -> bool:
    if loose == strict:
        return True
    if is_dataclass(loose) and is_dataclass(strict):
        return stricter(loose, strict)  # type: ignore[arg-type]
    if name.startswith("max") and loose is None:
        return True
    numbers = all(isinstance(value, int | float) for value in (loose, strict))
    return bool(
        numbers and ((name.startswith("min") and strict >= loose) or (name.startswith("max") and strict <= loose))
    )
