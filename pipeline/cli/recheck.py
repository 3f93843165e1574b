"""The command that asks sites again whether what was kept is still allowed: `pipeline recheck`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail
from pipeline.cli.options import OtherRecipeOption, RunArgument, SetOption, run_folder
from pipeline.cli.output import JsonOption, result, shown

if TYPE_CHECKING:
    from pipeline.maintenance.recheck import Rechecked

GO_ON = "what was asked stays: go on with the same command"


@exit_codes(Words(stopped=GO_ON, disk=f"mend that; {GO_ON}"))
def recheck(
    folder: RunArgument,
    sites_only: Annotated[
        bool,
        typer.Option("--sites-only", help="Ask for each site's robots.txt and tdmrep.json alone."),
    ] = False,
    recipe: OtherRecipeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the sites of kept rows again: robots.txt, tdmrep.json, and the headers of each URL; no picture is taken.

    Writes RUN/recheck/refused.csv, a list for `pipeline remove --list`, and changes nothing else of the run. One that
    was stopped goes on; once it has ended, the same command begins anew.

    Exit codes: 0 done, whatever was found; 1 the run is damaged; 2 no run folder, pictures that came with the input, or
    a run that another command holds; 130 interrupted.
    """
    from filters.fetch.config import require_packages
    from manifests.verify import is_run
    from pipeline.cli.runtime import run_context
    from pipeline.execution.run_folder import recipe_of_run

    require_packages()
    from pipeline.maintenance.recheck import recheck_run

    if not folder:
        fail("RUN is empty; wanted a run folder (. for the current one)")
    root = run_folder(folder, writes=True)
    if not root.is_dir() or not is_run(root):
        fail(f"{str(root)!r}: no run folder; wanted the folder that pipeline run has written (output.root)")
    read = recipe_of_run(root, recipe, set_ or [])
    with run_context(read, ("filter",)) as runtime:
        done = recheck_run(root, read, runtime, sites_only)
    result(as_json, recheck_document(root, done), recheck_lines(root, done))


def recheck_document(root: Path, done: "Rechecked") -> dict[str, Any]:
    """Return what a round found, for JSON."""
    return {"run": str(root), **asdict(done)}


def recheck_lines(root: Path, done: "Rechecked") -> Iterator[str]:
    """Yield the refusals by signal, what could not be learned, and how to remove what is refused."""
    yield from (f"  refused  {signal:<32}{rows:>10,}" for signal, rows in done.refusals.items())
    yield from (f"  unknown  {reason:<32}{rows:>10,}" for reason, rows in done.unknown.items())
    yield f"{root}: {done.rows:,} kept rows asked again: {done.allowed:,} allowed, {done.refused:,} refused now"
    if done.refused:
        yield shown(f"remove them: pipeline remove {root} --list {done.list}")


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(recheck)
