"""Check that the models a recipe names exist and fit together, before any of them is loaded."""

from typing import Any

from captioning.base import check_captioner, known_kinds
from captioning.prompts import PROMPTS, check_prompt, prompt_named
from filters.scorers.catalog import HEADS, clip_scale, scorer_specs
from filters.scorers.options import ScorerError
from manifests.schema import DECODED, DETECTED
from pipeline.recipes.captions import caption_sources, captioners, captioners_of, fault_of_name, prompts_of
from pipeline.recipes.datasets import LAION_COCO
from pipeline.recipes.rules import build_rules, input_columns, scored_columns
from pipeline.recipes.schema import BESIDE_TIERS, Recipe, RecipeError
from pipeline.recipes.user_captioners import load_user_captioners
from tokenize_shards.catalog import vq_spec

ITSELF = "llava"
"""A captioner that needs no table: LLaVA-1.5 by the defaults of its kind."""
OF_INPUT = (*LAION_COCO.columns, "aesthetic_v1", "aesthetic_v2", "language", "language_score", "hash")
"""Our columns that an input may fill; other scores are the recipe's own models' alone."""


def check_models(recipe: Recipe) -> None:
    """Raise RecipeError for an unknown scorer, captioner, tokenizer or option of one, or a size that does not fit a
    tokenizer."""
    try:
        scorer_specs(recipe.score.use, recipe.score.model_extra or {})
        _check_captions(recipe)
        for name, tier in recipe.tier.items():
            _check_tier(recipe, name, tier.size)
        _check_codes(recipe)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"recipe: {error}") from error


def _check_captions(recipe: Recipe) -> None:
    """Raise ValueError for a captioner, an option of one, or a prompt that does not exist."""
    load_user_captioners(recipe)
    prompts = prompts_of(recipe)
    for name, prompt in prompts.items():
        try:
            check_prompt(prompt)
        except ValueError as error:
            raise RecipeError(f"recipe: caption.prompts.{name}.{error}") from error
        if name in PROMPTS:
            raise RecipeError(f"recipe: caption.prompts.{name}: a bundled prompt is called so; a wording has one name")
    if other := recipe.caption.gate.retry_prompt:
        try:
            prompt_named(other, prompts)
        except ValueError as error:
            raise RecipeError(f"recipe: caption.gate.retry_prompt: {error}") from error
    asked = captioners(recipe)
    tables = list(recipe.caption.model_extra or {})
    for name in asked:
        if name not in (*tables, *known_kinds(), ITSELF):
            raise RecipeError(
                f"recipe: tier.{asked[name][0]}.caption: no captioner {name!r}; wanted a table [caption.NAME] of the"
                f" recipe, or a kind: {', '.join(dict.fromkeys((*tables, *known_kinds(), ITSELF)))}"
            )
    for name in dict.fromkeys([*tables, *asked]):
        if fault := fault_of_name(name):
            raise RecipeError(f"recipe: captioner {name!r}: {fault}")
        config = check_captioner(name, recipe.caption.options(name))
        try:
            prompt_named(config.prompt, prompts)
        except ValueError as error:
            raise RecipeError(f"recipe: caption.{name}.prompt: {error}") from error
    for tier, section in recipe.tier.items():
        names = captioners_of(section)
        if len(set(names)) < len(names):
            raise RecipeError(f"recipe: tier.{tier}.caption: {', '.join(names)}: wanted each captioner once")


def _check_tier(recipe: Recipe, name: str, size: int) -> None:
    vq, _ = recipe.tokenizer(name)
    step = vq_spec(vq).downsampling
    if size % step:
        raise RecipeError(f"recipe: tier.{name}.size = {size}: {vq} wants a multiple of {step}")
    if not name or not all(part.isalnum() or part == "_" for part in name):
        raise RecipeError(f"recipe: tier {name!r}: wanted letters, digits and underscores: it names files and folders")
    if name in BESIDE_TIERS:
        raise RecipeError(f"recipe: tier {name!r}: codes/{name} is a folder of the pipeline's own; take another name")


def _check_codes(recipe: Recipe) -> None:
    values = recipe.pretokenize
    if len(set(values.scales)) < len(values.scales):
        raise RecipeError(
            f"recipe: pretokenize.scales = {values.scales}: wanted each scale once, or every crop of it is stored twice"
        )
    sources = caption_sources(recipe.tier)
    if values.t5_caption not in sources:
        raise RecipeError(
            f"recipe: pretokenize.t5_caption = {values.t5_caption!r}: no pair has such a caption; choices:"
            f" {', '.join(sources)}"
        )


def check_rules(recipe: Recipe) -> None:
    """Raise RecipeError for an unknown filter, threshold, head, or a rule whose column nothing provides."""
    unknown = [name for name in recipe.score.use if name not in HEADS]
    if unknown:
        raise RecipeError(f"recipe: score.use: no head {unknown[0]!r}; known: {', '.join(sorted(HEADS))}")
    if recipe.score.embeddings and not any(HEADS[name].encoder == "clip" for name in recipe.score.use):
        with_clip = ", ".join(name for name, head in HEADS.items() if head.encoder == "clip")
        raise RecipeError(f"recipe: score.embeddings: no head of score.use runs CLIP; heads that do: {with_clip}")
    columns = input_columns(recipe)
    if "url" not in columns:
        raise RecipeError(
            'recipe: input.dataset = "columns" needs a map of your columns: [input.columns] url = "…", text = "…"'
        )
    for ours in recipe.input.columns:
        if ours not in OF_INPUT:
            raise RecipeError(
                f"recipe: input.columns: no column {ours!r} is taken from the input; those that are:"
                f" {', '.join(OF_INPUT)}"
            )
    provided = {*columns, *DECODED, *DETECTED, *scored_columns(recipe)}
    rules = build_rules(recipe)
    for place, some in (
        ("filter.rules", rules.everywhere),
        *((f"tier.{name}.rules", tier) for name, tier in rules.tiers.items()),
    ):
        for rule in some:
            _check_scale(recipe, place, rule)
            missing = [column for column in rule.inputs if column not in provided]
            if missing:
                heads = [name for name, head in HEADS.items() if missing[0] in head.columns]
                raise RecipeError(
                    f"recipe: {place}: rule {rule.name!r} reads {missing[0]!r}, which neither the input has nor a head"
                    f" of score.use fills; heads that do: {', '.join(heads) or 'none'}"
                )


def _check_scale(recipe: Recipe, place: str, rule: Any) -> None:
    """Raise RecipeError where a bound names the scale of another CLIP than the one that fills its column."""
    try:
        own = clip_scale(recipe.score.model_extra or {})
    except ScorerError as error:
        raise RecipeError(f"recipe: {error}") from error
    while rule is not None:
        if str(getattr(rule, "column", "")).startswith("clip_similarity") and rule.scale != own:
            raise RecipeError(
                f"recipe: {place}: rule {rule.name!r} means the scale of {rule.model!r}, but score.clip.model fills"
                f" {rule.column!r} with {own!r}; scales differ: give the bound for {own!r}, or another score.clip.model"
            )
        rule = getattr(rule, "otherwise", None)
