"""The commands that only look: `pipeline whatif`, `pipeline why`, `pipeline plan`."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.errors import exit_codes
from pipeline.cli.options import OutOption, RecipeOption, SetOption, open_recipe, open_run, recipe_of
from pipeline.cli.output import JsonOption, note, result

if TYPE_CHECKING:
    from pipeline.recipes.schema import Recipe


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (whatif, why, plan):
        app.command()(command)


@exit_codes()
def whatif(
    recipe: RecipeOption = None, out: OutOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Show the funnel that other thresholds would give, from stored values: no model runs, nothing is written.

    What may be asked: --set filter.rules.NAME.KEY, tier.NAME.rules.NAME.KEY, and whole lists of rules; of captions
    caption.gate.KEY, caption.gate.actions.FLAG and caption.audit.max_repeats. Where looser rules would let rows in that
    were never fetched, or captions would be asked for a second time, they are counted, and the rest is shown as bounds.
    """
    from pipeline.analysis.whatif import ask
    from pipeline.analysis.whatif_table import lines

    read = open_run(recipe, out, set_)
    answer = ask(read)
    result(as_json, answer.plain(), lines(answer, read))


@exit_codes()
def why(
    row: Annotated[
        str, typer.Argument(metavar="UID_OR_URL", help="uid (32 hex digits, or its first 8 or more) or URL of a row.")
    ],
    recipe: RecipeOption = None,
    out: OutOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a row's whole story: source, each value with its origin, each rule with its verdict, fetch, duplicates,
    captions, codes."""
    from pipeline.analysis.why import other_rules, stories

    read = open_run(recipe, out, set_)
    told, notes = stories(read, row), other_rules(read)
    if not as_json:
        for text in notes:
            note(f"note: {text}")
    rows = [{**values, "story": [line.strip() for line in story]} for values, story in told]
    result(
        as_json,
        {"run": str(read.root), "asked": row, "notes": notes, "rows": rows},
        (line for _, story in told for line in story),
    )


@exit_codes()
def plan(
    recipe: RecipeOption = None,
    out: OutOption = None,
    set_: SetOption = None,
    rows: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=1e15,
            help="About this many rows are sampled, from row groups spread over the files (20,000 where nothing is"
            " said). With --workers or --gpus: rows of the run that is rehearsed, such as 600e6; else those of the"
            " input.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Rehearse the run on so many worker processes, a core each.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Rehearse the run with so many GPUs.")] = None,
    costs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="What benchmarks/bench_scale.py measured here; else ./scale.json."),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP=ROWS",
            help="In a rehearsal: rows/s of one worker (fetch, decode) or of one GPU, or worker without any (score,"
            " caption, encode, t5), instead of what is assumed; may be given again.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict a run from a sample of its input: yield per rule with 95 % intervals, rows kept, hours and bytes per
    stage.

    No URL is touched: the share of URLs that live is assumed, or what this run folder has measured. The prediction is
    written to RUN/plan.json, and the filter stage's summary and the report show it beside what came out. With --workers
    or --gpus the run is rehearsed, and nothing is written: hours, bytes, requests, shards, files, memory and spill of
    each step, from costs that were measured on this machine.
    """
    read = open_recipe(recipe or recipe_of(out), out, set_)
    if workers is None and gpus is None and costs is None:
        _forecast(read, 20_000 if rows is None else int(rows), as_json)
        return
    from pipeline.analysis.costs import find_costs, read_costs
    from pipeline.analysis.rates import parse_rates
    from pipeline.analysis.rehearsal import lines, plain, rehearse

    rates, known = parse_rates(rate or []), read_costs(find_costs(costs))
    made = rehearse(read, None if rows is None else int(rows), workers or cores(), gpus or 0, known, rates)
    result(as_json, plain(made), lines(made))


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _forecast(read: "Recipe", rows: int, as_json: bool) -> None:
    from dataclasses import asdict

    from pipeline.analysis.forecast import forecast, lines, write_forecast

    made = forecast(read, rows)
    write_forecast(read.root, made)
    result(as_json, asdict(made), lines(made, read))
