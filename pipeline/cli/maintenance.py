"""The commands that keep a run whole: `pipeline verify` and `pipeline repair`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail
from pipeline.cli.options import JobsOption, OtherRecipeOption, RunArgument, SetOption, WorkersOption, run_folder
from pipeline.cli.output import JsonOption, note, result, shown

if TYPE_CHECKING:
    from manifests.verify import Report
    from pipeline.maintenance.repair.run import Repair

WIDTH = 100
"""Findings that are printed; the rest is counted."""
AGAIN = "what was repaired stays, run the same command again"
REPAIRED = Words("what was repaired stays. Go on with the same command.", failed=AGAIN, damaged=AGAIN, disk=AGAIN)


def report_document(root: Path, report: "Report") -> dict[str, Any]:
    """Return what verify says, for JSON: every finding, faults and notes."""
    return {
        "folder": str(root),
        "whole": not report.wrong,
        "files": report.files,
        "bytes": report.bytes,
        "findings": [{**asdict(finding), "wrong": finding.wrong} for finding in report.findings],
        "notes": list(report.said),
    }


def report_lines(root: Path, report: "Report", every: bool) -> Iterator[str]:
    """Yield each finding, `every`: however many, then one line that sums up."""
    yield from (f"  note: {line}" for line in report.said)
    notes = [finding for finding in report.findings if not finding.wrong]
    for finding in [*report.wrong, *notes][: None if every else WIDTH]:
        yield shown(f"  {'' if finding.wrong else 'note: '}{finding.kind:<8} {finding.path}: {finding.says}")
    hidden = 0 if every else max(0, len(report.findings) - WIDTH)
    if hidden:
        yield f"  and {hidden} more (--all names them)"
    files = len({finding.path for finding in report.wrong})
    verdict = f"{files} files are not as they should be" if files else "whole"
    yield f"{root}: {verdict}; {report.files:,} files, {report.bytes:,} bytes checked"


@exit_codes(Words(stopped="nothing was changed"))
def verify(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A run folder, or a bare folder of shards with their sidecars.")
    ],
    jobs: JobsOption = 0,
    samples: Annotated[
        bool, typer.Option("--samples", help="Decode every code sample too, as the trainer would: slower.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Name every finding, however many.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a run, or of a bare folder of shards, against its record; writes nothing.

    Finds files that are damaged, missing or foreign, and records that contradict one another, and names each.

    Exit codes: 0 whole, 1 something is wrong, 2 no run folder and no shards, 130 interrupted.
    """
    from pipeline.maintenance.verify import look

    if not folder:
        fail("DIR is empty; wanted a folder (. for the current one)")
    root = run_folder(folder)
    _note_runner(root)
    report = look(root, jobs, quiet, samples)
    result(as_json, report_document(root, report), report_lines(root, report, every))
    raise typer.Exit(1 if report.wrong else 0)


@exit_codes(REPAIRED)
def repair(
    folder: RunArgument,
    recipe: OtherRecipeOption = None,
    set_: SetOption = None,
    workers: WorkersOption = 0,
    jobs: JobsOption = 0,
    other_versions: Annotated[
        bool,
        typer.Option("--other-versions", help="Try with other packages or another processor than the manifest names."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the damaged and missing files of a run again from their inputs, byte for byte; pictures are fetched again.

    Only files of the recorded sha256 are taken. What cannot be repaired is named and left as it is; nothing is deleted.

    Exit codes: 0 whole again, 1 something was left, 2 no run folder, or recipe, weights or versions of other bytes, 130
    interrupted.
    """
    from pipeline.execution.backends import RunnerOptions
    from pipeline.execution.progress import ShownWatch
    from pipeline.maintenance.repair.run import RepairOptions

    if not folder:
        fail("RUN is empty; wanted a run folder (. for the current one)")
    options = RepairOptions(RunnerOptions(workers=workers), jobs, other_versions, ShownWatch(False))
    root = run_folder(folder, writes=True)
    report, work = _repair(root, recipe, set_ or [], options)
    result(as_json, repair_document(root, report, work), repair_lines(root, report, work))
    raise typer.Exit(1 if work is not None and work.left else 0)


def _repair(root: Path, recipe: str | None, sets: list[str], options: Any) -> tuple["Report", "Repair | None"]:
    from manifests.verify import is_run
    from pipeline.cli.runtime import run_context
    from pipeline.execution.run_folder import recipe_of_run
    from pipeline.maintenance.repair.run import repair_run

    if not root.is_dir() or not is_run(root):
        fail(f"{str(root)!r}: no run folder: shards alone cannot be made again, their sidecars do not say from what")
    read = recipe_of_run(root, recipe, sets)
    with run_context(read, ("filter",)) as runtime:
        return repair_run(root, read, runtime, options)


def repair_document(root: Path, report: "Report", work: "Repair | None") -> dict[str, Any]:
    """Return what repair did, for JSON: path -> how it was repaired, and path -> why it was left."""
    return {
        "folder": str(root),
        "whole": work is None or not work.left,
        "files": report.files,
        "bytes": report.bytes,
        "repaired": {} if work is None else dict(work.repaired),
        "left": {} if work is None else dict(work.left),
    }


def repair_lines(root: Path, report: "Report", work: "Repair | None") -> Iterator[str]:
    """Yield each file that was repaired or left, then one line that sums up."""
    if work is None:
        yield f"{root}: whole, nothing to repair; {report.files:,} files, {report.bytes:,} bytes checked"
        return
    for name, how in work.repaired.items():
        yield shown(f"  repaired  {name}: {work.found[name].says if name in work.found else 'not as planned'}; {how}")
    for name, why in work.left.items():
        yield shown(f"  left      {name}: {work.found[name].kind if name in work.found else 'unproved'}, {why}")
    left = f", {len(work.left)} left as they are" if work.left else "; whole again"
    yield f"{root}: {len(work.repaired)} files repaired{left}"


def _note_runner(root: Path) -> None:
    """Say so when a run is writing into the folder: its newest files may be reported."""
    import fcntl

    from manifests.store import is_remote

    if is_remote(root):
        return  # a lock that is looked at there is a request more, and tells of the last second alone
    try:
        with open(root / ".lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        note("note: a run holds this folder now; what it is writing may be reported")
    except OSError:
        pass


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(verify)
    app.command()(repair)
