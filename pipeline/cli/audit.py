"""The commands that judge what a run holds as a whole: `pipeline audit`."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.errors import exit_codes, fail
from pipeline.cli.options import RunArgument, run_folder
from pipeline.cli.output import JsonOption, result

audit = typer.Typer(no_args_is_help=True, help="Judge what a run holds as a whole.")


@audit.command("captions")
@exit_codes()
def audit_captions(
    folder: RunArgument,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Lines of each list, and groups of each axis.")] = 10,
    captioner: Annotated[
        str | None, typer.Option(metavar="NAME", help="One captioner alone; else each that has captions.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what repeats over a run's captions, what leaked into them, and which groups of people are named and kept.

    No model runs, nothing is written. What each figure means and cannot say stands in docs/caption-audit.md.

    Exit codes: 0 done, whatever was found; 1 the run is damaged; 2 no run folder, no captions, or no such captioner.
    """
    from pipeline.analysis.caption_audit import audit as audited
    from pipeline.analysis.caption_table import lines

    if not folder:
        fail("RUN is empty; wanted a run folder (. for the current one)")
    root = run_folder(folder)
    if not root.is_dir():
        fail(f"audit captions: no run folder {str(root)!r}; first: pipeline run --stage filter")
    found = audited(root, captioner, top)
    result(as_json, asdict(found), lines(found, top))
