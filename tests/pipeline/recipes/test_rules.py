"""Rules become filters; what scorers fill, where it comes from, and names that no rule may have."""

import pytest

from manifests.reasons import RESERVED
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.rules import build_rules, every_rule, files_behind, fillable, input_columns, origins, own_filters
from pipeline.recipes.schema import RecipeError
from tests.support.judged_rows import RECIPE


def with_rule(**rule):
    return parse_recipe({**RECIPE, "filter": {"rules": [{"use": "size", "min_side": 64, **rule}]}})


def test_filters_in_the_recipes_order():
    rules = build_rules(parse_recipe(RECIPE))
    assert [rule.name for rule in rules.everywhere] == ["size", "similarity"]
    assert {name: [rule.name for rule in tier] for name, tier in rules.tiers.items()} == {
        "broad": ["aspect"],
        "fine": ["aesthetic"],
    }
    assert rules.columns == ("width", "height", "similarity", "aesthetic_v2")


def test_every_rule_stands_once_as_the_recipe_has_it():
    assert [rule["use"] for rule in every_rule(parse_recipe(RECIPE))] == ["size", "similarity", "aspect", "aesthetic"]


def test_what_scorers_fill_and_that_stand_ins_say_so():
    recipe = parse_recipe(RECIPE)
    assert {"width", "height", "aesthetic_v2"} <= fillable(recipe)
    assert "pwatermark" not in fillable(recipe)
    assert origins(recipe)["aesthetic_v2"] == "aesthetic_v2 (stand-in weights)"


def test_columns_of_the_input_go_over_the_data_sets():
    recipe = parse_recipe({**RECIPE, "input": {"columns": {"text": "ALT"}}})
    assert (input_columns(recipe)["text"], input_columns(recipe)["url"]) == ("ALT", "URL")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("near_duplicate", "is a reason of the pipeline's own"),
        ("kept", "is a reason of the pipeline's own"),
        ("http_404", "is not of letters"),
        ("two words", "is not of letters"),
        ("9lives", "is not of letters"),
    ],
)
def test_names_that_no_rule_may_have(name, says):
    with pytest.raises(RecipeError, match=f"filter.rules: rule name '{name}' {says}"):
        with_rule(name=name)


def test_names_that_are_close_to_those():
    assert "http_ok" not in RESERVED
    assert [build_rules(with_rule(name=name)).everywhere[0].name for name in ("http_ok", "near-duplicate")] == [
        "http_ok",
        "near-duplicate",
    ]


def test_without_files_of_the_users_own_there_is_nothing_for_a_key():
    assert files_behind(parse_recipe(RECIPE)) == []
    assert own_filters(parse_recipe(RECIPE)) == {}
