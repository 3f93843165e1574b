"""Sections are strict and never change; sizes and tokenizers follow from what tiers leave out."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.recipes.schema import CaptionSection, InputSection, Recipe, ScoreSection, TierSection


def recipe(**sections) -> Recipe:
    return Recipe.model_validate(
        {"tier": {"a": {"size": 256}, "b": {"size": 512, "vq": "VQ-8", "weights": "w"}}, **sections}
    )


def test_a_tier_takes_the_tokenizer_of_pretokenize_unless_it_names_its_own():
    assert recipe().tokenizer("a") == ("VQ-16", "vq_ds16_t2i.pt")
    assert recipe().tokenizer("b") == ("VQ-8", "w")
    assert recipe(pretokenize={"vq": "VQ-demo", "weights": "demo"}).tokenizer("a") == ("VQ-demo", "demo")


def test_pictures_are_stored_for_the_largest_tier_and_a_tenth_more():
    assert recipe().store_side == 564  # 1.1 x 512 = 563.2, rounded up
    assert recipe(tier={"a": {"size": 100}}).store_side == 110  # exactly
    assert recipe(fetch={"store_side": 300}).store_side == 300


def test_plain_values_have_no_nulls_and_give_the_same_recipe():
    plain = recipe(output={"root": "a/b"}).plain()
    assert plain["tier"] == {
        "a": {"size": 256, "rules": []},
        "b": {"size": 512, "rules": [], "vq": "VQ-8", "weights": "w"},
    }
    assert "sample" not in plain["input"]
    assert Recipe.model_validate(plain).plain() == plain
    assert recipe(output={"root": "a/b"}).root == Path("a/b")


def test_sections_of_models_take_tables_alone():
    assert ScoreSection.model_validate({"clip": {"weights": "x"}}).options("clip") == {"weights": "x"}
    assert CaptionSection().options("llava") == {}
    with pytest.raises(ValidationError, match=r"unknown key 'batchsize'; known: batch_size, .*, or a table for"):
        CaptionSection.model_validate({"batchsize": 3})


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        (TierSection, {"size": 7}, "greater than or equal to 8"),
        (TierSection, {}, "Field required"),
        (InputSection, {"sample": 0.0}, "greater than 0"),
        (InputSection, {"dataset": "laion-5b"}, "'laion-coco', 'img2dataset'"),
        (Recipe, {"tier": {}}, "at least 1 item"),
        (Recipe, {"tier": {"a": {"size": 8}}, "filters": {}}, "Extra inputs"),
    ],
)
def test_bounds(section, values, says):
    with pytest.raises(ValidationError, match=says):
        section.model_validate(values)


def test_values_never_change_after_reading():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().input.limit = 3
