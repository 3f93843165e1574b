"""Write a run's report: one self-contained HTML page of its funnel, its pictures and its numbers, after any stage."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from manifests.extras import need
from manifests.files import FormatError, parsing, read_json, write_bytes
from manifests.roots import check_root, root_of
from pipeline.report.facts import Facts, gather
from pipeline.report.formats import count, fixed, percent, printable
from pipeline.report.sections import page_of

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"
TEMPLATE = "report.html.j2"


class ReportError(ValueError):
    """There is no run to report on; the message says where it was looked for."""


def write_report(run: Path, truth: Path | None = None) -> Path:
    """Write `RUN/report.html` from whatever the run folder holds and return its path.

    `truth`: the demo's truth table; without it, the one beside the run's own input is used where there is one.
    Raises ReportError where `run` is no run folder.
    """
    facts = gather_run(run, truth)
    path = run / REPORT
    write_bytes(path, render_report(facts, _credits(run)).encode())
    return path


def gather_run(run: Path, truth: Path | None = None) -> Facts:
    """Return the facts of a run folder, its truth table found where none is given. Raises ReportError."""
    if not (run / "manifests").is_dir() and not (run / "ledger").is_dir():
        raise ReportError(
            f"report: {str(run)!r} holds no run (no manifests/ and no ledger/ there); start one with: pipeline run"
            " --stage filter"
        )
    return gather(run, truth or _truth_beside(run))


def _truth_beside(run: Path) -> Path | None:
    """Return FOLDER/truth.parquet where the run's input is FOLDER/input/*.parquet and such a table lies there."""
    listed = run / "manifests" / "input.json"
    try:
        with parsing(listed, "no list of input files"):
            url = urlsplit(read_json(listed)["files"][0]["url"])
    except (OSError, FormatError):
        return None
    path = Path(unquote(url.path)).parent.parent / "truth.parquet"
    return path if url.scheme in ("", "file") and path.is_file() else None


def _credits(run: Path) -> str:
    try:
        return (run / "ATTRIBUTION.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def render_report(facts: Facts, attribution: str = "") -> str:
    """Return the page. Parts that the run has not reached are left out; the same facts give the same bytes."""
    return templates().get_template(TEMPLATE).render(page=page_of(facts, attribution))


@functools.cache
def templates() -> "Environment":
    """Return the templates of the page, each section one.

    Whatever a template shows is escaped and made printable, attributes included: captions and URLs come from strangers.
    A name that a template reads and nobody gave is an error.

    Raises MissingExtra without Jinja2: the extra `report` asks for it, and torch brings it too.
    """
    jinja2 = need("jinja2", "report")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report"),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": count, "fixed": fixed, "percent": percent}
    return environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a run folder, and with --png the picture of its top."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.report.render", description=main.__doc__)
    parser.add_argument("run", help="run folder, such as demo/run, or its URL")
    parser.add_argument("--truth", type=Path, help="truth table of the demo; found by itself beside the run's input")
    parser.add_argument("--png", type=Path, help="also draw the report's top as a picture (docs/report.png is made so)")
    options = parser.parse_args(arguments)
    try:
        run = root_of(options.run)
        check_root(run)
        print(f"report: {write_report(run, options.truth)}")
        if options.png:
            from pipeline.report.poster import draw_poster  # matplotlib is an extra

            print(f"picture: {draw_poster(gather_run(run, options.truth), options.png)}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
