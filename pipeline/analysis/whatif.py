"""Answer `pipeline whatif`: the funnel for other rules, from stored values, with no model and nothing written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import WORTH, verdicts
from filters.verdicts import EXACT, PASSES, Numbers, RuleSet, codes_of, flags, reasons_of
from manifests.journal import records_of
from pipeline.analysis.replan import (
    COMES,
    COPY,
    LEAVES,
    STAYS,
    Groups,
    Plan,
    Regrouped,
    regroup_twins,
    rows_of,
    values_of,
)
from pipeline.analysis.reselect import IN, MAY, OUT, Reselect, Selected
from pipeline.analysis.stored_run import Shard, Stored, check_askable, open_stored, typed
from pipeline.recipes.rules import build_rules, fillable
from pipeline.recipes.schema import Recipe

OPEN = -2
"""Code of a row whose fate nobody can say: it was never fetched."""


@dataclass(frozen=True)
class Funnel:
    """What becomes of the rows: rows_in = kept + dropped + the rows that are open."""

    rows_in: int
    kept: int
    dropped: dict[str, int]
    tiers: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """The funnel now and then. `open`: rows that were never fetched, by the reason they have now; `most`: if all of
    them were kept."""

    now: Funnel
    then: Funnel
    changed: list[str]
    open: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Tell whether a rerun would give exactly these figures."""
        return not self.open and not self.moved

    def plain(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return {**asdict(self), "exact": self.exact}


def ask(recipe: Recipe) -> Answer:
    """Return the funnel that the recipe's rules would give. Raises RecipeError for what stored values cannot answer."""
    stored = open_stored(recipe.root, "whatif")
    check_askable(recipe, stored)
    question = Question.of(recipe, stored)
    survey = Survey(question)
    for shard in stored.shards:
        survey.add(shard)
    return survey.answer()


@dataclass(frozen=True)
class Question:
    """The asked rules beside those of the run. `reasons` names every reason that can come up; those of its verdicts
    stand first, in their order."""

    recipe: Recipe
    stored: Stored
    rules: RuleSet
    select: Reselect
    reasons: tuple[str, ...]
    settled: frozenset[str]

    @classmethod
    def of(cls, recipe: Recipe, stored: Stored) -> "Question":
        """Build both sets of rules."""
        rules = build_rules(recipe)
        before = build_rules(
            recipe.model_copy(
                update={"filter": recipe.filter.model_copy(update={"rules": stored.settings["select"]["rules"]})}
            )
        )
        seen = [
            reason
            for step in ("select", "decide")
            for record in records_of(stored.root, step)
            for reason in record.dropped
        ]
        names = [rule.name for rule in before.everywhere]
        reasons = tuple(dict.fromkeys((*reasons_of(rules), EXACT, *names, *sorted(seen))))
        filled = fillable(recipe)
        settled = frozenset(rule.name for rule in rules.everywhere if not filled & {*rule.inputs})
        return cls(
            recipe, stored, rules, Reselect(before.everywhere, rules.everywhere, filled, reasons), reasons, settled
        )

    def changes(self) -> list[str]:
        """Return the rules that differ, as `PLACE: before -> then`."""
        before, plain = self.stored.rules_before, self.recipe.plain()
        found = list(_differences("filter.rules", before["filter"], plain["filter"]["rules"]))
        was, then = dict(before["tiers"]), {name: tier["rules"] for name, tier in plain["tier"].items()}
        for name in dict.fromkeys((*was, *then)):
            found += _differences(f"tier.{name}.rules", was.get(name, []), then.get(name, []))
        if list(was) != list(then):
            found.append(f"tiers: {', '.join(was)} -> {', '.join(then)}")
        return found


def _differences(place: str, before: list[dict[str, Any]], then: list[dict[str, Any]]) -> Iterator[str]:
    named = [{rule.get("name", rule["use"]): rule for rule in rules} for rules in (before, then)]
    for name in dict.fromkeys((*named[0], *named[1])):
        was, now = (rules.get(name) for rules in named)
        if was is None or now is None:
            yield f"{place}.{name}: {'added' if was is None else 'removed'}"
            continue
        yield from (
            f"{place}.{name}.{key}: {was.get(key, 'default')} -> {now.get(key, 'default')}"
            for key in dict.fromkeys((*was, *now))
            if was.get(key) != now.get(key)
        )
    if list(named[0]) != list(named[1]) and set(named[0]) == set(named[1]):
        yield f"{place}: another order"


@dataclass
class Survey:
    """Adds up shards as they are stored, and what another select would do with their rows; then settles all anew."""

    question: Question
    codes: list[Numbers] = field(default_factory=list)
    groups: Groups = field(default_factory=Groups)
    now: Counter[str] = field(default_factory=Counter)
    tiers_now: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def add(self, shard: Shard) -> None:
        """Count one shard's fates, and note which of its rows another select would send to the fetch."""
        table = shard.finals(["reason", "step", "uid", "cluster", "tiers"])
        for entry in pc.value_counts(table["reason"]).to_pylist():
            self.now[entry["values"] or ""] += entry["counts"]
        for entry in pc.value_counts(pc.list_flatten(table["tiers"])).to_pylist():
            self.tiers_now[entry["values"]] += entry["counts"]
        code = codes_of(table["reason"].combine_chunks(), self.question.reasons)
        if self.question.select.changed:
            self._select_again(shard, table, code)
        self.codes.append(code)
        self.rows += table.num_rows

    def _select_again(self, shard: Shard, table: pa.Table, code: Numbers) -> None:
        """Note what other select rules do: rows that leave, rows that come in, rows of the same uid that take over."""
        selected = self.question.select.evaluate(shard)
        fixed = flags(pc.fill_null(pc.equal(table["step"], "dedup"), False))  # removed rows stay removed
        copies = flags(pc.fill_null(pc.equal(table["reason"], EXACT), False))
        out = ~fixed & (selected.state == OUT)
        enters = ~fixed & ~selected.before & (selected.state != OUT)
        leaves = out & selected.before & ~copies
        moved = selected.moved & ~fixed
        for entry in pc.value_counts(table["reason"].filter(pa.array(moved))).to_pylist():
            self.moved[entry["values"]] += entry["counts"]
        self.groups.add(self.rows, table, _kinds(selected, fixed, copies, enters, leaves), selected.state == MAY)
        gone = out & ~leaves
        code[gone] = selected.code[gone]
        self.groups.left(self.rows, leaves, selected.code)

    def answer(self) -> Answer:
        """Settle copies, give every row whose values are stored its verdict, and count."""
        question = self.question
        before = np.concatenate([np.empty(0, np.int16), *self.codes])
        plan = self.groups.settle(question.stored)
        settled = verdicts(self._facts(plan), question.rules, question.settled)
        code, passed = before.copy(), np.zeros(self.rows, np.uint64)
        code[settled.rows], passed[settled.rows] = settled.verdicts.code, settled.verdicts.tiers
        opened: Counter[str] = Counter()
        if question.select.changed:
            code, opened = self._compose(code, passed, before, plan)
        return self._figures(code, passed, opened)

    def _facts(self, plan: Plan) -> Iterator[pa.RecordBatch]:
        """Yield what decide would know of the rows that were fetched and scored well. A fetched row whose picture
        another row of its uid takes over has that one's values."""
        stored, rules = self.question.stored, self.question.rules
        columns = tuple(dict.fromkeys((*rules.columns, *WORTH, "uid", "mark", "cluster")))
        taken, twins = plan.other[:, 1], regroup_twins(self.groups, plan.gone, self.question.recipe)
        start = 0
        for shard in stored.shards:
            table = shard.finals(["step", *columns])
            for name in [name for name in rules.columns if name not in table.column_names]:
                table = table.append_column(name, shard.selected([name])[name])
            rows = np.arange(start, start + table.num_rows)
            decided = _decided(table["step"]) & ~np.isin(rows, taken)
            yield _numbered(typed(table, columns).filter(pa.array(decided)), rows[decided], twins)
            start += table.num_rows
        if not len(taken):
            return
        pairs = plan.other[_decided(rows_of(taken, stored, True, ("step",))["step"])]
        if len(pairs):
            yield _numbered(typed(values_of(pairs, stored, columns), columns), pairs[:, 1], twins)

    def _compose(self, code: Numbers, passed: Numbers, before: Numbers, plan: Plan) -> tuple[Numbers, Counter[str]]:
        """Give rows of one uid the fate of the one that stands for them; count the rows that stay open by their reason
        now."""
        reasons = self.question.reasons
        settled = code.copy()
        settled[plan.copies] = reasons.index(EXACT)
        settled[plan.stands[:, 0]] = code[plan.stands[:, 1]]
        passed[plan.stands[:, 0]] = passed[plan.stands[:, 1]]
        settled[self.groups.leavers] = self.groups.left_codes
        opened: Counter[str] = Counter()
        for place, count in zip(*np.unique(before[plan.open], return_counts=True), strict=True):
            opened[reasons[place] if place >= 0 else "kept"] += int(count)
        settled[plan.open] = OPEN
        return settled, opened

    def _figures(self, code: Numbers, passed: Numbers, opened: Counter[str]) -> Answer:
        question = self.question
        kept = code == PASSES
        counts = np.bincount(code[code >= 0], minlength=len(question.reasons))
        dropped = {reason: int(count) for reason, count in zip(question.reasons, counts, strict=True) if count}
        bits = passed[kept]
        tiers = {
            name: int(((bits >> np.uint64(n)) & np.uint64(1)).sum()) for n, name in enumerate(question.recipe.tier)
        }
        now = Counter(self.now)
        kept_now = now.pop("", 0)
        was = [name for name, _ in question.stored.rules_before["tiers"]]
        total, least = opened.total(), int(kept.sum())
        if self.rows != least + sum(dropped.values()) + total:
            raise AssertionError(
                f"whatif: {self.rows} rows in, {least} kept, {sum(dropped.values())} dropped, {total} open"
            )
        return Answer(
            Funnel(self.rows, kept_now, _ordered(now), {name: self.tiers_now[name] for name in was}),
            Funnel(self.rows, least, _ordered(dropped), tiers),
            question.changes(),
            _ordered(opened),
            {"kept": least + total, **{name: count + total for name, count in tiers.items()}} if total else {},
            _ordered(self.moved),
            _notes(now),
        )


def _decided(step: pa.ChunkedArray) -> Numbers:
    """Tell of each final row whether decide gave it its fate: it was fetched and scored well."""
    return flags(pc.or_kleene(pc.is_null(step), pc.equal(step, "decide")))


def _numbered(batch: pa.RecordBatch, rows: Numbers, twins: Regrouped) -> pa.RecordBatch:
    """Add the numbers of the rows, and their clusters as they are without the rows that are gone."""
    place = batch.schema.get_field_index("cluster")
    batch = batch.set_column(place, "cluster", twins.relabel(rows, batch["cluster"]))
    return batch.append_column("row", pa.array(rows))


def _kinds(selected: Selected, fixed: Numbers, copies: Numbers, enters: Numbers, leaves: Numbers) -> Numbers:
    """Return per row what it is to the fetch, 0 for rows that have nothing to do with it."""
    kinds = np.zeros(len(fixed), np.int8)
    kinds[selected.before & ~fixed & ~copies] = STAYS
    kinds[leaves] = LEAVES
    kinds[copies & (selected.state == IN) & ~fixed] = COPY
    kinds[enters] = COMES
    return kinds


def _ordered(counts: Any) -> dict[str, int]:
    return dict(sorted(((name, int(n)) for name, n in counts.items() if n), key=lambda item: (-item[1], item[0])))


def _notes(now: Counter[str]) -> list[str]:
    died = now.get("worker_died", 0)
    return [f"{died:,} rows whose worker died would be tried again by a run; here they stay dropped"] if died else []
