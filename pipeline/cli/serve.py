"""`pipeline serve`: a page and a JSON endpoint on this machine that draw pictures from a checkpoint."""

import os
from typing import Annotated, Any, Literal

import typer

from pipeline.cli.errors import Words, exit_codes, fail

EMPTY = "is empty; leave the option out, or give it a value"


def _given(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise typer.BadParameter(EMPTY)
    return text


@exit_codes(Words("pictures that were not saved are gone."))
def serve(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint's folder, train/TIER/checkpoints, a .safetensors, or a LlamaGen .pt.")
    ],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0: on every network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8765,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Answer to this name too, beside localhost and addresses; repeatable."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, max=256, help="Pictures drawn at once: 16 on a GPU, 4 on a CPU.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Pictures that may wait.")] = 64,
    rate: Annotated[int, typer.Option(min=1, help="Requests per minute that a client may send.")] = 60,
    per_client: Annotated[int, typer.Option(min=1, help="Pictures of a client that wait or are drawn.")] = 16,
    prompt_length: Annotated[int, typer.Option(min=1, max=4000, help="Characters of a prompt.")] = 500,
    keep: Annotated[int, typer.Option(min=1, max=10_000, help="Finished pictures kept in memory.")] = 64,
    preview_rows: Annotated[int, typer.Option(min=0, help="Show a picture every so many rows; 0: at its end.")] = 4,
    ema: Annotated[bool, typer.Option("--ema", help="Draw with the running average of the weights.")] = False,
    vq: Annotated[
        str | None, typer.Option(callback=_given, metavar="NAME", help="Tokenizer, such as VQ-16 (the training's).")
    ] = None,
    vq_weights: Annotated[
        str | None, typer.Option(callback=_given, metavar="FILE", help="Its weights; stand-in: seeded random ones.")
    ] = None,
    text_weights: Annotated[
        str | None, typer.Option(callback=_given, metavar="FOLDER", help="T5 encoder: a folder, or a cached name.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Side of a picture (that of the training).")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 on a GPU, fp32 on a CPU.")
    ] = "auto",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one.")] = "auto",
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the step (on a GPU it is).")
    ] = None,
) -> None:
    """Draw pictures for a page and a JSON endpoint, http://127.0.0.1:8765/, until Ctrl-C.

    Requests of different prompts share one decode: each joins as soon as a slot is free. The same prompt, seed and
    settings give the same picture alone and with others.

    Exit codes: 1 could not go on, 2 wrong use or a port that is taken, 130 ended by Ctrl-C.
    """
    from manifests.extras import require
    from pipeline.sampling.options import Source

    require(["aiohttp"], "serve")
    from pipeline.serving.limits import Limits
    from pipeline.serving.server import Address
    from pipeline.serving.server import serve as serve_at

    source = Source(checkpoint, ema, vq, vq_weights, text_weights, size, precision, device)
    limits = Limits(queue=queue, per_client=per_client, rate=rate, keep=keep, preview_rows=preview_rows)
    address = Address(host, port, tuple(name or ()))
    serve_at(lambda: _load(source, slots, compiled, prompt_length), address, limits)


def _load(source: Any, slots: int | None, compiled: bool | None, prompt_length: int) -> tuple[Any, Any]:
    """Return the engine and the reader of requests. Wrong weights and settings are wrong use."""
    from pipeline.sampling.options import Settings
    from pipeline.serving.gpt_engine import GPTEngine
    from pipeline.serving.wish import Reader
    from pipeline.training.studio import open_studio

    try:
        studio = open_studio(source, Settings())
    except ValueError as error:
        fail(str(error))
    on_gpu = next(studio.gpt.parameters()).device.type == "cuda"
    engine = GPTEngine(
        studio,
        slots or (16 if on_gpu else 4),
        compiled=on_gpu if compiled is None else compiled,
        beside=os.path.dirname(os.path.normpath(source.checkpoint)),
    )
    return engine, Reader(engine.facts.classes, prompt_length, studio.sampling)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(serve)
