"""`make demo`: the four commands one after another, as a user would type them, then the report."""

import subprocess
import sys
import time
from typing import Annotated

import typer

from pipeline.execution.progress import clock

PIPELINE = [sys.executable, "-m", "pipeline.cli"]


def commands(out: str | None, workers: int) -> list[tuple[str, list[str]]]:
    """Return (what it shows, command) of each step of the demo."""
    place = ["--out", out] if out else []
    width = ["--workers", str(workers)] if workers else []
    run = [*PIPELINE, "run", *place, *width, "--stage"]
    return [
        ("pipeline run --stage filter", [*run, "filter"]),
        ("pipeline run --stage caption", [*run, "caption"]),
        ("make pretokenize", [*run, "pretokenize"]),
        ("python -m pipeline.train", [sys.executable, "-m", "pipeline.train", *place]),
        ("pipeline report", [*PIPELINE, "report", *place]),
    ]


def demo(
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Run folder, instead of demo/run.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
) -> None:
    """Run the whole chain on real pictures, CPU only. Run it again, or after a kill: what is done is skipped."""
    started, times = time.monotonic(), []
    for shown, command in commands(out, workers):
        print(f"\n$ {shown}", flush=True)
        before = time.monotonic()
        try:
            code = subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            code = 130
        times.append((shown, time.monotonic() - before))
        if code:
            raise typer.Exit(code)
    print(
        "\nthe demo took "
        + clock(time.monotonic() - started)
        + ": "
        + ", ".join(f"{shown} {clock(seconds)}" for shown, seconds in times)
    )


if __name__ == "__main__":
    typer.run(demo)
