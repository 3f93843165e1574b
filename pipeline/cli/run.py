"""`pipeline run`: a stage, or all three."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail
from pipeline.cli.options import OutOption, RecipeOption, SetOption, open_recipe
from pipeline.cli.output import JsonOption, as_text, put
from pipeline.cli.runtime import after, run_context

STAGES = ("filter", "caption", "pretokenize", "all")
RUNNERS = ("local", "flink", "spark", "dataflow", "portable")
RETRY = "--retry-failed"
OWN_MEMORY = "memory://"


def _words(given: list[str] | None) -> list[str] | None:
    """Refuse what is no word: `--retry-failed --out DIR` would take the next option for one."""
    if any(not word.strip(" ,") or word.startswith("-") for word in given or ()):
        raise typer.BadParameter("wants a word: transient (those that may have passed), or a reason such as dns")
    return given


RetryOption = Annotated[
    list[str] | None,
    typer.Option(
        RETRY,
        metavar="REASON",
        callback=_words,
        help=(
            "Ask again the fetches that failed for this reason (dns, timeout, http_503, http_5xx …), or transient: for"
            " those that may have passed. Pictures that came stay. With --stage filter. Repeatable."
        ),
    ),
]


@exit_codes(Words("finished shards stay. Go on with the same command."))
def run(
    context: typer.Context,
    stage: Annotated[str, typer.Option(help=f"What to run: {', '.join(STAGES)}.")],
    step: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these steps of the stage, e.g. dedup,decide.")
    ] = None,
    recipe: RecipeOption = None,
    out: OutOption = None,
    set_: SetOption = None,
    runner: Annotated[str, typer.Option(help=f"Beam runner: {', '.join(RUNNERS)}.")] = "local",
    workers: Annotated[
        int,
        typer.Option(min=0, help="Worker processes; 0: one per core, or per GPU. Elsewhere: units done at once."),
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="About this many input rows, chosen by hash(uid, seed).")
    ] = None,
    sample: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="This share of the input rows, chosen by hash(uid, seed).")
    ] = None,
    retry_failed: RetryOption = None,
    as_json: JsonOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say which steps would run.")] = False,
    beam_options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- BEAM OPTIONS]", help="Options for Beam's runner, after --.")
    ] = None,
) -> None:
    """Run a stage. What is done is skipped; Ctrl-C stops, and the same command goes on.

    Exit codes: 0 done, 1 could not go on, 2 wrong use or recipe, 3 more losses than the recipe allows, 130 interrupted.
    """
    from pipeline.execution.forkserver import forkserver

    if stage not in STAGES:
        fail(f"--stage {stage!r}: no such stage; choices: {', '.join(STAGES)}")
    if runner not in RUNNERS:
        fail(f"--runner {runner!r}: no such runner; choices: {', '.join(RUNNERS)}")
    if step is not None and not step.strip(" ,"):
        fail(f"--step {step!r}: names no step; leave the option out to run the whole stage")
    retry = retry_reasons(
        retry_failed, stage, steps := tuple(name.strip() for name in (step or "").split(",") if name.strip())
    )
    given = tuple(beam_options or ())
    if given:
        from pipeline.execution.beam_flags import flags

        list(flags(given))
    if not dry_run:
        forkserver()  # workers' imports begin now, beside ours
    sets = [
        *(set_ or []),
        *([f"input.limit={limit}"] if limit else []),
        *([f"input.sample={sample}"] if sample is not None else []),
    ]
    read = open_recipe(recipe, out, sets)
    if read.output.root.startswith(OWN_MEMORY):
        fail(f"{read.output.root}: only this process would see it, and workers are others; wanted a folder, or s3://…")

    from pipeline.execution.backends import RunnerOptions
    from pipeline.execution.engine import seen_by_workers, with_width
    from pipeline.stages.run import StageOptions

    where = RunnerOptions(runner, workers, given, read.runner.stall_s, read.runner)
    read = seen_by_workers(read, where)
    options = StageOptions(with_width(where, read.root), steps, dry_run, retry)
    run_stages(read, STAGES[:3] if stage == "all" else (stage,), options, as_json)


def retry_reasons(given: list[str] | None, stage: str, steps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the reasons that are asked again, () without the option. Raises WrongUse or RecipeError for what it cannot
    mean."""
    if not given:
        return ()
    from pipeline.steps.fetch.retry import parse_reasons

    if stage not in ("filter", "all"):
        fail(f"{RETRY} belongs to --stage filter, where pictures are fetched; got --stage {stage}")
    if steps and "fetch" not in steps:
        fail(f"{RETRY} needs the step fetch; got --step {','.join(steps)}")
    return parse_reasons(given)


def run_stages(recipe: Any, stages: tuple[str, ...], options: Any, as_json: bool = False) -> None:
    """Run these stages one after the other, and print what each did, or as JSON what all did that came to their end.

    Raises TooManyLosses behind the figures of the stage that lost too much, and what `run_stage` raises.
    """
    from pipeline.cli.summary import print_summary, summary

    ended: list[dict[str, Any]] = []
    try:
        for finished in _in_turn(recipe, stages, options):
            ended.append(summary(finished))
            if not as_json:
                print_summary(recipe, finished)
    finally:
        if as_json:
            put(as_text({"run": str(recipe.root), "stages": ended}))


def _in_turn(recipe: Any, stages: tuple[str, ...], options: Any) -> Iterator[Any]:
    """Run the stages; yield each that came to its end, before its losses are looked at."""
    from pipeline.stages.manifest import check_losses
    from pipeline.stages.run import check_ahead, run_stage

    check_ahead(recipe, stages[1:])
    with run_context(recipe, stages) as runtime:
        for name in stages:
            finished = run_stage(recipe, name, options, runtime)
            if finished is not None:
                yield finished
                check_losses(recipe, finished.manifest)
            after(recipe, name, options)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(run)
