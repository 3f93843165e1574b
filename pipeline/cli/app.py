"""The command line: every command by its group; it teaches, and answers --help without heavy imports."""

import typer

from pipeline.cli import analysis, codes, maintenance, remove, report, run

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
analysis.register(app)
maintenance.register(app)
remove.register(app)
app.add_typer(codes.show, name="show")
app.add_typer(codes.export, name="export")
app.add_typer(codes.import_, name="import")


def main() -> None:
    """Run the command line."""
    app()
