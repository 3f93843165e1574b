"""Which captions a recipe makes, and which of them its tiers train on."""

import pytest

from pipeline.recipes.captions import caption_sources, captioners, captioners_of, fault_of_name, weights_of_captions
from pipeline.recipes.load import parse_recipe

BASE = {
    "tier": {
        "a": {"size": 64},
        "b": {"size": 64, "caption": ["two", "one"], "captions": {"recaption": 1.0}},
        "c": {"size": 64, "caption": "one"},
    },
    "caption": {"one": {"model": "stand-in"}, "two": {"model": "stand-in"}},
    "train": {"tier": "b"},
}


def test_captioners_stand_in_the_tiers_order():
    recipe = parse_recipe(BASE)
    assert [captioners_of(tier) for tier in recipe.tier.values()] == [(), ("two", "one"), ("one",)]
    assert captioners(recipe) == {"two": ["b"], "one": ["b", "c"]}
    assert caption_sources({"a": recipe.tier["a"]}) == ("alt", "top_caption")
    made = ("recaption", "recaption_short", "one", "one_short", "one_fit")
    assert caption_sources({"c": recipe.tier["c"]}) == ("alt", "top_caption", *made)


def test_training_takes_its_own_weights_else_the_tiers_else_alt():
    assert weights_of_captions(parse_recipe(BASE)) == {"recaption": 1.0}
    assert weights_of_captions(parse_recipe(BASE), "a") == {"alt": 1.0}
    own = parse_recipe({**BASE, "train": {"tier": "b", "captions": {"alt": 2.0}}})
    assert weights_of_captions(own) == {"alt": 2.0}


@pytest.mark.parametrize("name", ["alt", "top_caption", "recaption", "x_short", "x_fit", "a.b", "", "_a", "ä", "a-b"])
def test_names_that_mean_something_else_or_name_no_file_are_faulty(name):
    assert fault_of_name(name)
    assert fault_of_name("llava") == "" == fault_of_name("qwen_7b")
