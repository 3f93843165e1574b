"""The commands that keep a run whole: `pipeline verify` and `pipeline repair`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail

if TYPE_CHECKING:
    from manifests.verify import Report

WIDTH = 100
"""Findings that are printed; the rest is counted."""
MOST_JOBS = 1024
"""Threads beyond this number only use up the machine's."""
AGAIN = "what was repaired stays, run the same command again"
REPAIRED = Words("what was repaired stays. Go on with the same command.", failed=AGAIN, damaged=AGAIN, disk=AGAIN)


def shown(line: str) -> str:
    """Return a line with escapes where a file's name holds line breaks, control characters or bytes that are no
    UTF-8."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def print_report(root: Path, report: "Report", every: bool) -> None:
    """Print each finding, then one line that sums up."""
    for line in report.said:
        print(f"  note: {line}")
    notes = [finding for finding in report.findings if not finding.wrong]
    for finding in [*report.wrong, *notes][: None if every else WIDTH]:
        print(shown(f"  {'' if finding.wrong else 'note: '}{finding.kind:<8} {finding.path}: {finding.says}"))
    hidden = 0 if every else max(0, len(report.findings) - WIDTH)
    if hidden:
        print(f"  and {hidden} more (--all names them)")
    files = len({finding.path for finding in report.wrong})
    verdict = f"{files} files are not as they should be" if files else "whole"
    print(f"{root}: {verdict}; {report.files:,} files, {report.bytes:,} bytes checked", flush=True)


@exit_codes(Words(stopped="nothing was changed"))
def verify(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A run folder, or a bare folder of shards with their sidecars.")
    ],
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, max=MOST_JOBS, help="Threads that read and hash; 0: one per core.")
    ] = 0,
    samples: Annotated[
        bool, typer.Option("--samples", help="Decode every code sample too, as the trainer would: slower.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Name every finding, however many.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Check every file of a run, or of a bare folder of shards, against its record; writes nothing.

    Finds files that are damaged, missing or foreign, and records that contradict one another, and names each.

    Exit codes: 0 whole, 1 something is wrong, 2 no run folder and no shards, 130 interrupted.
    """
    from pipeline.maintenance.verify import look

    if not folder:
        fail("DIR is empty; wanted a folder (. for the current one)")
    _note_runner(Path(folder))
    report = look(Path(folder), jobs, quiet, samples)
    print_report(Path(folder), report, every)
    raise typer.Exit(1 if report.wrong else 0)


@exit_codes(REPAIRED)
def repair(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="FILE", help="Recipe, instead of the one in the run folder.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe value; repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core, or per GPU.")] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, max=MOST_JOBS, help="Threads that read and hash; 0: one per core.")
    ] = 0,
    other_versions: Annotated[
        bool,
        typer.Option("--other-versions", help="Try with other packages or another processor than the manifest names."),
    ] = False,
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
    raise typer.Exit(_repair(Path(folder), recipe, set_ or [], options))


def _repair(root: Path, recipe: str | None, sets: list[str], options: Any) -> int:
    from manifests.verify import is_run
    from pipeline.cli.runtime import run_context
    from pipeline.execution.run_folder import recipe_of_run
    from pipeline.maintenance.repair.run import repair_run

    if not root.is_dir() or not is_run(root):
        fail(f"{str(root)!r}: no run folder: shards alone cannot be made again, their sidecars do not say from what")
    read = recipe_of_run(root, recipe, sets)
    with run_context(read, ("filter",)) as runtime:
        report, work = repair_run(root, read, runtime, options)
    if work is None:
        print(f"{root}: whole, nothing to repair; {report.files:,} files, {report.bytes:,} bytes checked")
        return 0
    for name, how in work.repaired.items():
        print(shown(f"  repaired  {name}: {work.found[name].says if name in work.found else 'not as planned'}; {how}"))
    for name, why in work.left.items():
        print(shown(f"  left      {name}: {work.found[name].kind if name in work.found else 'unproved'}, {why}"))
    left = f", {len(work.left)} left as they are" if work.left else "; whole again"
    print(f"{root}: {len(work.repaired)} files repaired{left}", flush=True)
    return 1 if work.left else 0


def _note_runner(root: Path) -> None:
    """Say so when a run is writing into the folder: its newest files may be reported."""
    import fcntl

    try:
        with open(root / ".lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        print("note: a run holds this folder now; what it is writing may be reported")
    except OSError:
        pass


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(verify)
    app.command()(repair)
