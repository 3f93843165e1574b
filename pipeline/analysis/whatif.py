"""Answer `pipeline whatif`: the funnel for other rules, from stored values, with no model and nothing written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import Candidates
from filters.verdicts import EXACT, NEAR, PASSES, Numbers, RuleSet, codes_of, flags, marked, reasons_of, verdicts_of
from manifests.journal import records_of
from pipeline.analysis.replan import COMES, COPY, LEAVES, STAYS, Groups, Plan, regroup_twins, rows_of, values_of
from pipeline.analysis.reselect import IN, MAY, OUT, Reselect, Selected
from pipeline.analysis.stored_run import Shard, Stored, check_askable, open_stored, typed
from pipeline.recipes.rules import build_rules, fillable
from pipeline.recipes.schema import Recipe

OPEN = -2
"""Code of a row whose fate nobody can say: it was never fetched."""
WORTH = ("width", "height", "aesthetic_v1", "aesthetic_v2")


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
    """Adds up shards: per row a code and the bits of its tiers, and what is needed to settle twins and rows of one
    uid."""

    question: Question
    codes: list[Numbers] = field(default_factory=list)
    passed: list[Numbers] = field(default_factory=list)
    rivals: list[pa.RecordBatch] = field(default_factory=list)
    groups: Groups = field(default_factory=Groups)
    now: Counter[str] = field(default_factory=Counter)
    tiers_now: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def add(self, shard: Shard) -> None:
        """Judge one shard's rows."""
        question = self.question
        wanted = dict.fromkeys(("reason", "step", "mark", "cluster", "uid", *question.rules.columns, *WORTH))
        table = shard.finals([*wanted, "tiers"])
        for name in [name for name in question.rules.columns if name not in table.column_names]:
            table = table.append_column(name, shard.selected([name])[name])
        self._count(table)
        code = codes_of(table["reason"].combine_chunks(), question.reasons)
        decided = flags(pc.or_kleene(pc.is_null(table["step"]), pc.equal(table["step"], "decide")))
        passed = np.zeros(table.num_rows, np.uint64)
        self._judge(table, decided, code, passed)
        if question.select.changed:
            self._select_again(shard, table, code)
        self.codes.append(code)
        self.passed.append(passed)
        self.rows += table.num_rows

    def _count(self, table: pa.Table) -> None:
        for entry in pc.value_counts(table["reason"]).to_pylist():
            self.now[entry["values"] or ""] += entry["counts"]
        for entry in pc.value_counts(pc.list_flatten(table["tiers"])).to_pylist():
            self.tiers_now[entry["values"]] += entry["counts"]

    def _judge(self, table: pa.Table, decided: Numbers, code: Numbers, passed: Numbers) -> None:
        """Judge the rows that have all their values, and note those that have twins."""
        here = np.flatnonzero(decided)
        batch = typed(table, self._columns).filter(pa.array(decided))
        code[here], passed[here] = self._verdicts(batch, here + self.rows)

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.question.rules.columns, *WORTH, "uid", "mark", "cluster")))

    def _verdicts(self, batch: pa.RecordBatch, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Return codes and bits of tiers of these rows, and note those that have twins."""
        verdicts = verdicts_of(self.question.rules, batch, self.question.settled)
        codes = marked(verdicts.code, batch["mark"], self.question.reasons)
        rival = (codes == PASSES) & flags(pc.is_valid(batch["cluster"]))
        chosen = batch.select([*WORTH, "uid", "cluster"]).filter(pa.array(rival))
        chosen = chosen.append_column("row", pa.array(rows[rival])).append_column(
            "rank", pa.array(verdicts.rank[rival])
        )
        self.rivals.append(chosen)
        return codes, verdicts.tiers

    def _judge_again(self, plan: Plan, code: Numbers, passed: Numbers) -> None:
        """Judge fetched rows by the values of the rows that stand for them, where the fetch itself went well."""
        pairs = plan.other
        step = (
            rows_of(pairs[:, 1], self.question.stored, True, ("step",))["step"]
            if len(pairs)
            else pa.chunked_array([[]], pa.string())
        )
        pairs = pairs[flags(pc.or_kleene(pc.is_null(step), pc.equal(step, "decide")))]
        if not len(pairs):
            return
        rows = pairs[:, 1]
        self.rivals = [batch.filter(pa.array(~np.isin(batch["row"].to_numpy(), rows))) for batch in self.rivals]
        batch = typed(values_of(pairs, self.question.stored, self._columns), self._columns)
        code[rows], passed[rows] = self._verdicts(batch, rows)

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
        """Settle twins and copies, and count."""
        question = self.question
        code = np.concatenate(self.codes) if self.codes else np.empty(0, np.int16)
        passed = np.concatenate(self.passed) if self.passed else np.empty(0, np.uint64)
        before = code.copy()
        plan = self.groups.settle(question.stored)
        self._judge_again(plan, code, passed)
        self._settle_twins(code, plan.gone)
        opened: Counter[str] = Counter()
        if question.select.changed:
            code, opened = self._compose(code, passed, before, plan)
        return self._figures(code, passed, opened)

    def _settle_twins(self, code: Numbers, gone: Numbers) -> None:
        table = pa.Table.from_batches(self.rivals) if self.rivals else None
        if table is None or not table.num_rows:
            return
        table = table.filter(pa.array(~np.isin(table["row"].to_numpy(), gone)))
        candidates = Candidates.of(table, table["rank"].to_numpy())
        rows = table["row"].to_numpy()
        regroup_twins(candidates.cluster, rows, self.groups, gone, self.question.recipe)
        code[rows[candidates.losers()]] = self.question.reasons.index(NEAR)

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
