"""Which captions a recipe makes, and which of them its tiers train on."""

import pytest

from pipeline.recipes.captions import (
    caption_sources,
    captioners,
    captioners_of,
    fault_of_name,
    untrained_captions,
    weights_of_captions,
)
from pipeline.recipes.load import load_recipe, parse_recipe

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


def warned(tier=None, **tiers):
    tiers = {"a": {"size": 64}, **{name: {"size": 64, "caption": ["one"], **more} for name, more in tiers.items()}}
    recipe = {"tier": tiers, "caption": {"one": {"model": "x/y"}, "two": {"use": "stand_in"}}, "train": {"tier": "a"}}
    return untrained_captions(parse_recipe(recipe), tier)


def test_captions_that_no_training_draws_are_warned_of():
    (warning,) = warned(c={}, d={"captions": {"recaption_short": 1.0}}, e={"captions": {"one_fit": 0.1, "alt": 1.0}})
    assert warning.startswith("warning: tier c: one writes captions and training draws none of them (alt = 1)")
    assert "tier.c.captions, such as { one = 0.7, one_short = 0.3 }" in warning
    assert warned("a", c={}) == warned("d", c={}, d={"captions": {"one": 1.0}}) == []
    assert len(warned(c={"captions": {"alt": 1.0, "one": 0.0}})) == 1
    assert warned(c={"caption": "two"}) == []  # a stand-in's words are for nobody


def test_laion_coco_trains_stage_1_on_its_captions_and_stage_2_on_ours():
    recipe = load_recipe("laion_coco")
    assert weights_of_captions(recipe) == {"top_caption": 0.8, "alt": 0.2}
    second = load_recipe("laion_coco_512")
    assert weights_of_captions(second) == {"llava": 0.7, "llava_short": 0.3}
    assert untrained_captions(recipe) == untrained_captions(second) == []
