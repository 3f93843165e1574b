"""List the stages and their steps, in order."""

from pipeline.execution.step import Runtime, Step
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.steps.caption import CaptionStep
from pipeline.steps.decide import Decide
from pipeline.steps.dedup import Dedup
from pipeline.steps.encode import Encode
from pipeline.steps.fetch.step import Fetch
from pipeline.steps.index import IndexStep
from pipeline.steps.judge import JudgeStep
from pipeline.steps.measure import Measure, Remeasure
from pipeline.steps.pack import Pack
from pipeline.steps.recaption import Recaption
from pipeline.steps.repeats import Repeats
from pipeline.steps.score import Score
from pipeline.steps.select import Select
from pipeline.steps.t5 import T5

NEEDS = {"filter": None, "caption": "filter", "pretokenize": "filter"}

STAGES: dict[str, tuple[type[Step], ...]] = {
    "filter": (Select, Fetch, Score, Dedup, Decide),
    "caption": (CaptionStep, Measure, Recaption, Remeasure, Repeats, JudgeStep),
    "pretokenize": (Encode, T5, Pack, IndexStep),
}


def stage_steps(recipe: Recipe, stage: str, runtime: Runtime) -> list[Step]:
    """Return the steps of a stage. Raises RecipeError for a stage that does not exist."""
    if stage not in STAGES:
        raise RecipeError(f"--stage {stage!r}: no such stage; choices: {', '.join(STAGES)}, all")
    return [step(recipe, recipe.root, runtime) for step in STAGES[stage]]
