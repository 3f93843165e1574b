"""The command line: every command by its group; it teaches, and answers --help without heavy imports."""

import gc
import io
import os
import sys

import typer

from pipeline.cli import analysis, audit, codes, maintenance, prune, recheck, remove, report, run, sample, serve

YOUNG = 50_000
"""New objects before Python looks for dead cycles among them: with its own 700 that takes a quarter of what is
imported."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Tessera: from a table of image URLs and captions to VQ-code shards and a text-to-image model.

    Four commands make the whole chain, each from what the one before left in the run folder:

      pipeline run --stage filter        input table -> pairs, scores, one fate per row

      pipeline run --stage caption       kept pairs -> captions

      pipeline run --stage pretokenize   kept pairs -> shards of VQ codes

      python -m pipeline.train           shards -> a text-to-image model

    With no --recipe they use recipe.toml of this folder, else the bundled demo, and say which.""",
)


@app.callback()
def top() -> None:
    """Show the help of the whole command."""


run.register(app)
report.register(app)
sample.register(app)
analysis.register(app)
maintenance.register(app)
prune.register(app)
remove.register(app)
recheck.register(app)
serve.register(app)
app.add_typer(audit.audit, name="audit")
app.add_typer(codes.show, name="show")
app.add_typer(codes.export, name="export")
app.add_typer(codes.import_, name="import")


def main() -> None:
    """Run the command line.

    stdout writes what its encoding lacks as escapes. Where a standard stream is closed, its number is taken by
    /dev/null: the next file to be opened would get it, and what is printed would land there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if foreign := [word for word in sys.argv[1:] if not _is_utf8(word)]:
        sys.stderr.write(f"error: {foreign[0]!a}: no UTF-8; recipes and records, which name it, are\n")
        sys.exit(2)
    gc.set_threshold(YOUNG)
    app()


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
