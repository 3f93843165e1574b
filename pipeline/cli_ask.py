"""The commands that only look: `pipeline whatif`, `pipeline why`, `pipeline plan`."""

import json
from typing import Annotated

import typer

from pipeline.cli_options import OutOption, RecipeOption, SetOption, fail, open_run

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (whatif, why):
        app.command()(command)


def whatif(recipe: RecipeOption = None, out: OutOption = None, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Show the funnel that other thresholds would give, from stored values: no model runs, nothing is written.

    What may be asked: --set filter.rules.NAME.KEY, tier.NAME.rules.NAME.KEY, and whole lists of rules. Where looser rules
    would let rows in that were never fetched, they are counted, and kept is shown as bounds.
    """
    from pipeline.funnel import lines
    from pipeline.recipe import RecipeError
    from pipeline.whatif import ask

    read = open_run(recipe, out, set_)
    try:
        answer = ask(read)
    except RecipeError as error:
        fail(str(error), 2)
    typer.echo(json.dumps(answer.plain(), ensure_ascii=False) if as_json else "\n".join(lines(answer, read)))


def why(
    row: Annotated[str, typer.Argument(metavar="UID_OR_URL", help="uid (32 hex digits, or its first 8 or more) or URL of a row.")],
    recipe: RecipeOption = None,
    out: OutOption = None,
    set_: SetOption = None,
) -> None:
    """Tell a row's whole story: source, each value with its origin, each rule with its verdict, fetch, duplicates, captions, codes."""
    from pipeline.recipe import RecipeError
    from pipeline.why import NotFound, print_story

    read = open_run(recipe, out, set_)
    try:
        print_story(read, row)
    except NotFound as error:
        fail(str(error), 1)
    except RecipeError as error:
        fail(str(error), 2)
