"""The command that shows what is kept aside and lets it go: `pipeline prune`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail
from pipeline.cli.options import RunArgument, run_folder
from pipeline.cli.output import JsonOption, result

if TYPE_CHECKING:
    from pipeline.maintenance.prune import Kept


@exit_codes(Words(stopped="what was let go is gone, the rest stays", disk="then run the same command again"))
def prune(
    folder: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Let it go; without, it is only shown.")] = False,
    steps: Annotated[
        list[str] | None, typer.Option("--step", metavar="STEP", help="Of this step alone. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what fell out of a run's plans and is kept aside, by step: rows, files and bytes; with --yes let it go.

    Rows that come back into a plan are taken from there: nobody is asked again and no model runs. No output of the run
    and no digest depends on it.

    Exit codes: 0 done; 2 no run folder, one that another run holds, or a step with nothing aside; 130 interrupted.
    """
    from manifests.verify import is_run
    from pipeline.maintenance.prune import prune as let_go
    from pipeline.maintenance.prune import set_aside_in, under_way

    if not folder:
        fail("RUN is empty; wanted a run folder (. for the current one)")
    root = run_folder(folder, writes=yes)
    if not root.is_dir() or not is_run(root):
        fail(f"{str(root)!r}: no run folder; wanted the folder that pipeline run has written (output.root)")
    there = set_aside_in(root)
    wanted = steps or [kept.step for kept in there]
    if unknown := [name for name in wanted if name not in {kept.step for kept in there}]:
        names = ", ".join(kept.step for kept in there) or "none"
        fail(f"--step {unknown[0]!r}: nothing of it is set aside; steps with something: {names}")
    shown = [kept for kept in there if kept.step in wanted]
    gone = let_go(root, steps or []) if yes else []
    waiting = under_way(root)
    result(as_json, prune_document(root, gone or shown, yes, waiting), prune_lines(root, gone or shown, yes, waiting))


def prune_document(root: Path, kept: "Sequence[Kept]", gone: bool, waiting: "Sequence[Kept]") -> dict[str, Any]:
    """Return what is aside, or was let go, for JSON."""
    return {
        "run": str(root),
        "let_go": gone,
        "steps": {one.step: {"rows": one.rows, "files": one.files, "bytes": one.bytes} for one in kept},
        "files": sum(one.files for one in kept),
        "bytes": sum(one.bytes for one in kept),
        "under_way": {one.step: {"rows": one.rows, "files": one.files, "bytes": one.bytes} for one in waiting},
    }


def prune_lines(root: Path, kept: "Sequence[Kept]", gone: bool, waiting: "Sequence[Kept]") -> Iterator[str]:
    """Yield a line for each step, then one that sums up."""
    for one in kept:
        yield f"  {one.step:<8} {one.rows:>12,} rows {one.files:>8,} files {one.bytes:>18,} bytes"
    for one in waiting:
        yield f"  note: {one.step} was interrupted; {one.bytes:,} bytes of the plan before wait for the next run"
    files, size = sum(one.files for one in kept), sum(one.bytes for one in kept)
    if not kept:
        yield f"{root}: nothing is set aside"
    elif gone:
        yield f"{root}: let go of {files:,} files, {size:,} bytes"
    else:
        yield f"{root}: {files:,} files, {size:,} bytes are set aside; --yes lets them go"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(prune)
