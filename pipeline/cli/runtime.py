"""What a run needs around it: for the demo, its data and the server of its pictures."""

from typing import Any


def is_demo(recipe: Any) -> bool:
    """Tell whether the recipe makes its own data."""
    return str(recipe.input.dataset).startswith("demo")


def run_context(recipe: Any, stages: tuple[str, ...]) -> Any:
    """Return a context that gives the run's Runtime: for the demo it makes the data and serves it while the stage
    runs."""
    import contextlib

    from pipeline.execution.step import Runtime

    if is_demo(recipe):
        from pipeline.demo.harness import serving

        return serving(recipe, stages)
    return contextlib.nullcontext(Runtime())


def after(recipe: Any, stage: str, options: Any) -> None:
    """Tell the demo's truth once filter has given every row its fate."""
    if is_demo(recipe) and stage == "filter" and not options.dry_run and not options.steps:
        from pipeline.demo.harness import tell_truth

        tell_truth(recipe)
