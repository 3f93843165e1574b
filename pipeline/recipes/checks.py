"""Check that the models a recipe names exist and fit together, before any of them is loaded."""

from captioning.base import check_captioner
from filters.scorers.catalog import scorer_specs
from pipeline.recipes.schema import Recipe, RecipeError
from tokenize_shards.catalog import vq_spec


def check_models(recipe: Recipe) -> None:
    """Raise RecipeError for an unknown scorer, captioner, tokenizer or option of one, or a size that does not fit a
    tokenizer."""
    try:
        scorer_specs(recipe.score.use, recipe.score.model_extra or {})
        for name in dict.fromkeys(
            [*(recipe.caption.model_extra or {}), *(tier.caption for tier in recipe.tier.values() if tier.caption)]
        ):
            check_captioner(name, recipe.caption.options(name))
        for name, tier in recipe.tier.items():
            _check_tier(recipe, name, tier.size)
        _check_codes(recipe)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"recipe: {error}") from error


def _check_tier(recipe: Recipe, name: str, size: int) -> None:
    vq, _ = recipe.tokenizer(name)
    step = vq_spec(vq).downsampling
    if size % step:
        raise RecipeError(f"recipe: tier.{name}.size = {size}: {vq} wants a multiple of {step}")
    if not all(part.isalnum() or part in "_" for part in name):
        raise RecipeError(f"recipe: tier {name!r}: wanted letters, digits and underscores: it names files and folders")


def _check_codes(recipe: Recipe) -> None:
    values = recipe.pretokenize
    if len(set(values.scales)) < len(values.scales):
        raise RecipeError(
            f"recipe: pretokenize.scales = {values.scales}: wanted each scale once, or every crop of it is stored twice"
        )
    captioners = dict.fromkeys(tier.caption for tier in recipe.tier.values() if tier.caption)
    sources = ["alt", "top_caption", *(source for name in captioners for source in (name, f"{name}_short"))]
    if values.t5_caption not in sources:
        raise RecipeError(
            f"recipe: pretokenize.t5_caption = {values.t5_caption!r}: no pair has such a caption; choices:"
            f" {', '.join(sources)}"
        )
