"""Turn the recipe's rules into filters, and check that each column they read can be had."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from filters.base import Filter, build_filter
from filters.scorers.catalog import HEADS, scorer_specs
from filters.verdicts import RuleSet
from manifests.reasons import RESERVED
from manifests.schema import DECODED
from manifests.weights import STAND_IN
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.user_filters import load_user_filters, user_files

NAME = re.compile(r"(?!http_\d)[A-Za-z][\w-]*")


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
