"""`pipeline sample`: pictures from a checkpoint; its options are those of `python -m pipeline.sample`."""

import typer

AS_THEY_ARE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def sample(context: typer.Context) -> None:
    """Draw pictures from a checkpoint, this trainer's or LlamaGen's: prompts or classes to PNGs or an .npz."""
    from pipeline.sampling.options import read_options

    wish = read_options(context.args, "pipeline sample")

    from pipeline.sample import run  # torch

    raise typer.Exit(run(wish))


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(context_settings=AS_THEY_ARE, add_help_option=False)(sample)
