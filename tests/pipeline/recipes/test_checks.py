"""What a recipe names must exist and fit together: each fault says what was got and what the choices are."""

import pytest

from pipeline.recipes.checks import check_models, check_rules
from pipeline.recipes.schema import Recipe, RecipeError
from tests.support.judged_rows import RECIPE


def recipe(**sections) -> Recipe:
    return Recipe.model_validate({**RECIPE, **sections})


def test_a_recipe_that_fits():
    check_models(recipe())
    check_rules(recipe())


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"tier": {"a": {"size": 100}}}, r"tier\.a\.size = 100: VQ-16 wants a multiple of 16"),
        ({"tier": {"a": {"size": 100, "vq": "VQ-7"}}}, "VQ-7"),
        ({"tier": {"a-b": {"size": 64}}}, "tier 'a-b': wanted letters, digits and underscores"),
        ({"tier": {"": {"size": 64}}}, "tier '': wanted letters, digits and underscores"),
        ({"tier": {"encoded": {"size": 64}}}, "tier 'encoded': codes/encoded is a folder of the pipeline's own"),
        ({"tier": {"t5": {"size": 64}}}, "tier 't5': codes/t5 is a folder of the pipeline's own"),
        ({"tier": {"a": {"size": 64, "caption": "nobody"}}}, "nobody"),
        (
            {"caption": {"gate": {"retry_prompt": "nope"}}},
            "caption.gate.retry_prompt: no prompt 'nope'; known: describe",
        ),
        ({"pretokenize": {"scales": [1.1, 1.1]}}, "wanted each scale once"),
        ({"pretokenize": {"t5_caption": "llava"}}, "'llava': no pair has such a caption; choices: alt, top_caption$"),
    ],
)
def test_models(sections, says):
    with pytest.raises(RecipeError, match=says):
        check_models(recipe(**sections))


def test_features_may_be_of_a_captioner_that_a_tier_names():
    tier = {"a": {"size": 64, "caption": "llava"}}
    for name in ("llava", "llava_short"):
        check_models(recipe(tier=tier, pretokenize={"t5_caption": name}))


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"score": {"use": ["nohead"]}}, "no head 'nohead'; known: .*conse"),
        ({"score": {"use": [], "embeddings": True}}, r"score\.embeddings: no head of score\.use runs CLIP; heads that"),
        ({"input": {"dataset": "columns"}}, r"needs a map of your columns: \[input\.columns\] url"),
        ({"input": {"columns": {"phash": "X"}}}, "no column 'phash' is taken from the input"),
        ({"score": {"use": []}}, "rule 'aesthetic' reads 'aesthetic_v2', which neither .* heads that do: aesthetic_v2"),
        ({"filter": {"rules": [{"use": "sharpness"}]}}, r"filter\.rules\[0\].*sharpness"),
    ],
)
def test_rules(sections, says):
    with pytest.raises(RecipeError, match=says):
        check_rules(recipe(**sections))


def test_a_column_that_the_input_fills_needs_no_scorer():
    check_rules(recipe(score={"use": []}, input={"columns": {"aesthetic_v2": "AESTHETIC"}}))


def test_a_bound_must_be_of_the_scale_of_the_clip_that_fills_its_column():
    rule = {"use": "similarity", "column": "clip_similarity", "min": 0.3, "model": "ViT-L-14/openai"}
    with pytest.raises(RecipeError, match="scales differ"):
        check_rules(recipe(filter={"rules": [rule]}))
