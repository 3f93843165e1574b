"""`pipeline report`: one page about a run."""

import typer

from pipeline.cli.errors import exit_codes, fail
from pipeline.cli.options import OutOption, RecipeOption, SetOption, open_recipe, recipe_of
from pipeline.cli.output import JsonOption, result


@exit_codes()
def report(
    recipe: RecipeOption = None, out: OutOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Write RUN/report.html: the funnel, examples of each fate, scores, captions, codes, training."""
    from pipeline.report.render import write_report

    read = open_recipe(recipe or recipe_of(out), out, set_)
    if not read.root.is_dir():
        fail(f"report: no run folder {str(read.root)!r}; first: pipeline run --stage filter")
    page = write_report(read.root)
    result(as_json, {"report": page, "bytes": page.stat().st_size}, [f"report: {page}"])


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(report)
