"""Answer `pipeline whatif`: the funnel for other rules, from stored values, with no model and nothing written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import WORTH, Evaluated, evaluate_rows
from filters.verdicts import EXACT, Numbers, RuleSet, codes_of, flags, reasons_of
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
from pipeline.analysis.tally import Late, Tally
from pipeline.analysis.whatif_captions import CaptionFunnel, ask_captions
from pipeline.recipes.rules import build_rules, fillable
from pipeline.recipes.schema import Recipe


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
    them were kept. `captions`: captioner -> what becomes of its captions, where there are any; `stale`: they are
    counted from measures, or for pictures, that a run would make or choose anew."""

    now: Funnel
    then: Funnel
    changed: list[str]
    open: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    captions: dict[str, CaptionFunnel] = field(default_factory=dict)
    stale: bool = False

    @property
    def exact(self) -> bool:
        """Tell whether a rerun would give exactly these figures."""
        waits = self.stale or any(one.open for one in self.captions.values())
        return not self.open and not self.moved and not waits

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
    answer = survey.answer()
    captions = ask_captions(recipe)
    changed, notes = [*answer.changed, *captions.changed], [*answer.notes, *captions.notes]
    stale = captions.stale
    if answer.changed and captions.funnels:
        notes.append("captions are those of the pictures that are kept now")
        stale = True
    return replace(answer, changed=changed, notes=notes, captions=captions.funnels, stale=stale)


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
    """Adds up shards as they are stored, and what another select would do with their rows; then settles all anew.

    Held are counts, 26 bytes of a row that is a copy or that another select treats otherwise, and 70 of one that passes
    and has twins.
    """

    question: Question
    groups: Groups = field(default_factory=Groups)
    now: Counter[str] = field(default_factory=Counter)
    tiers_now: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    then: "Tally" = field(init=False)
    rows: int = 0

    def __post_init__(self) -> None:
        self.then = Tally(self.question.reasons, tuple(self.question.recipe.tier))

    def add(self, shard: Shard) -> None:
        """Count one shard's fates, and note which of its rows another select would send to the fetch."""
        table = shard.finals(["reason", "step", "uid", "tiers"])
        for entry in pc.value_counts(table["reason"]).to_pylist():
            self.now[entry["values"] or ""] += entry["counts"]
        for entry in pc.value_counts(pc.list_flatten(table["tiers"])).to_pylist():
            self.tiers_now[entry["values"]] += entry["counts"]
        code = codes_of(table["reason"].combine_chunks(), self.question.reasons)
        if self.question.select.changed:
            self._select_again(shard, table, code)
        self.then.count(code)
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
        kinds = _kinds(selected, fixed, copies, enters, leaves)
        self.groups.add(self.rows, table["uid"].combine_chunks(), kinds, selected.state == MAY, selected.code)
        gone = out & ~leaves
        code[gone] = selected.code[gone]

    def answer(self) -> Answer:
        """Settle copies, give every row whose values are stored its verdict, and count."""
        question = self.question
        plan = self.groups.settle(question.stored)
        late = Late.of(question.reasons, plan, self.groups)
        for rows, base, evaluated in self._evaluated(plan, late):
            late.take(rows, evaluated, base, self.then)
        late.settle()
        opened = late.compose(plan, self.groups) if question.select.changed else Counter[str]()
        self.then.count(late.code, late.passed)
        return self._figures(opened, late.note())

    def _evaluated(self, plan: Plan, late: "Late") -> Iterator[tuple[Numbers, Numbers | None, Evaluated]]:
        """Yield, shard by shard, the numbers of decided rows, the places of the reasons that they have now, and their
        verdicts under the asked rules; last of all, without such places, those of rows that stand for a fetched one."""
        question = self.question
        stored, rules = question.stored, question.rules
        columns = tuple(dict.fromkeys((*rules.columns, *WORTH, "uid", "mark", "cluster")))
        taken, twins = plan.other[:, 1], regroup_twins(stored, plan.gone, question.recipe)
        start = 0
        for shard in stored.shards:
            table = shard.finals(["step", "reason", *columns])
            for name in [name for name in rules.columns if name not in table.column_names]:
                table = table.append_column(name, shard.selected([name])[name])
            rows = np.arange(start, start + table.num_rows)
            code = codes_of(table["reason"].combine_chunks(), question.reasons)
            decided = _decided(table["step"]) & ~np.isin(rows, taken)
            late.find(rows[~decided], code[~decided], self.then)
            batch = _regrouped(typed(table, columns).filter(pa.array(decided)), rows[decided], twins)
            yield rows[decided], code[decided], evaluate_rows(batch, rules, question.settled)
            start += table.num_rows
        if not len(taken):
            return
        pairs = plan.other[_decided(rows_of(taken, stored, True, ("step",))["step"])]
        if len(pairs):
            batch = _regrouped(typed(values_of(pairs, stored, columns), columns), pairs[:, 1], twins)
            yield pairs[:, 1], None, evaluate_rows(batch, rules, question.settled)

    def _figures(self, opened: Counter[str], held: list[str]) -> Answer:
        question, then = self.question, self.then
        now = Counter(self.now)
        kept_now = now.pop("", 0)
        was = [name for name, _ in question.stored.rules_before["tiers"]]
        total, least, dropped = opened.total(), then.kept, then.dropped
        if self.rows != least + sum(dropped.values()) + total:
            raise AssertionError(
                f"whatif: {self.rows} rows in, {least} kept, {sum(dropped.values())} dropped, {total} open"
            )
        return Answer(
            Funnel(self.rows, kept_now, _ordered(now), {name: self.tiers_now[name] for name in was}),
            Funnel(self.rows, least, _ordered(dropped), then.tiers),
            question.changes(),
            _ordered(opened),
            {"kept": least + total, **{name: count + total for name, count in then.tiers.items()}} if total else {},
            _ordered(self.moved),
            [*_notes(now), *held],
        )


def _decided(step: pa.ChunkedArray) -> Numbers:
    """Tell of each final row whether decide gave it its fate: it was fetched and scored well."""
    return flags(pc.or_kleene(pc.is_null(step), pc.equal(step, "decide")))


def _regrouped(batch: pa.RecordBatch, rows: Numbers, twins: Regrouped) -> pa.RecordBatch:
    """Give rows, by their numbers, their clusters as they are without the rows that are gone."""
    place = batch.schema.get_field_index("cluster")
    return batch.set_column(place, "cluster", twins.relabel(rows, batch["cluster"]))


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
