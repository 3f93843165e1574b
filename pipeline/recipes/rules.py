"""Turn the recipe's rules into filters, check that each column they read can be had, and find each row's first
failure."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, build_filter
from filters.scorers.catalog import HEADS, scorer_specs
from manifests.schema import DECODED
from manifests.weights import STAND_IN
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.user_filters import load_user_filters, user_files

RESERVED = frozenset(
    (
        *(
            "bad_url",
            "missing_value",
            "broken_row_group",
            "broken_line",
            "broken_tar",
            "blocked_scheme",
            "blocked_address",
            "dns",
        ),
        *(
            "connection",
            "tls",
            "timeout",
            "bad_response",
            "too_many_redirects",
            "too_large",
            "incomplete_body",
            "empty_body",
            "robots",
        ),
        *(
            "opted_out",
            "missing_file",
            "blocked_path",
            "not_an_image",
            "too_many_pixels",
            "animated",
            "truncated",
            "corrupt",
        ),
        *(
            "exact_duplicate",
            "near_duplicate",
            "placeholder",
            "in_eval_set",
            "removed",
            "worker_died",
            "fetch",
            "kept",
            "dropped",
        ),
    )
)
"""Reasons that are not rules' (docs/reasons.md): no rule may be called so. `http_NNN` is shut out by its form."""
NAME = re.compile(r"(?!http_\d)[A-Za-z][\w-]*")


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


def input_columns(recipe: Recipe) -> dict[str, str]:
    """Return our column -> the input's column."""
    return {**DATASETS[recipe.input.dataset].columns, **recipe.input.columns}


def scored_columns(recipe: Recipe) -> tuple[str, ...]:
    """Return the columns that the recipe's heads fill."""
    return tuple(dict.fromkeys(column for name in recipe.score.use for column in HEADS[name].columns))


def origins(recipe: Recipe) -> dict[str, str]:
    """Return scored column -> the head that fills it, as the ledger names it: a stand-in always says so."""
    named: dict[str, str] = {}
    for spec in scorer_specs(recipe.score.use, recipe.score.model_extra or {}):
        weights = {getattr(options, "weights", None) for options in (spec.options, spec.encoder_options)}
        label = f"{spec.name} (stand-in weights)" if STAND_IN in weights else spec.name
        named.update(dict.fromkeys(HEADS[spec.name].columns, label))
    return named


def fillable(recipe: Recipe) -> frozenset[str]:
    """Return the columns that a later step can fill where the input has a null."""
    return frozenset((*DECODED, *scored_columns(recipe)))


def build_rules(recipe: Recipe) -> RuleSet:
    """Build every filter of the recipe, those of the user's own files too. Raises RecipeError naming the place of the
    faulty rule."""
    load_user_filters(recipe)
    return RuleSet(
        _build_list("filter.rules", recipe.filter.rules),
        {name: _build_list(f"tier.{name}.rules", tier.rules) for name, tier in recipe.tier.items()},
    )


def _build_list(place: str, rules: Sequence[dict[str, object]]) -> tuple[Filter, ...]:
    built: list[Filter] = []
    for position, rule in enumerate(rules):
        try:
            built.append(build_filter(rule))
        except ValueError as error:
            raise RecipeError(f"recipe: {place}[{position}]: {error}") from error
    for made in built:
        if not NAME.fullmatch(made.name) or made.name in RESERVED:
            what = (
                "is a reason of the pipeline's own" if made.name in RESERVED else "is not of letters, digits, - and _"
            )
            raise RecipeError(
                f"recipe: {place}: rule name {made.name!r} {what}; it is the reason of the rows that the rule drops:"
                " take another"
            )
    names = [rule.name for rule in built]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"recipe: {place}: two rules are named {twice[0]!r}; give one of them another name = …")
    return tuple(built)


def every_rule(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the rules of [filter] and of every tier."""
    return [*recipe.filter.rules, *(rule for tier in recipe.tier.values() for rule in tier.rules)]


def files_behind(recipe: Recipe, rules: Sequence[Mapping[str, Any]] | None = None) -> list[tuple[str, str]]:
    """Return (name, sha256) of the user's Python files whose filters these rules use; by default every rule."""
    load_user_filters(recipe)
    return user_files({str(rule.get("use")) for rule in (every_rule(recipe) if rules is None else rules)})


def own_filters(recipe: Recipe, rules: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Return `files_behind` as settings of a step, for its key: nothing where no rule uses a file of the user's."""
    files = files_behind(recipe, rules)
    return {"python": [[name, sha256] for name, sha256 in files]} if files else {}


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
