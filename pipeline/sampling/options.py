"""Read the options of `pipeline sample`, without torch."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Precision = Literal["auto", "fp32", "bf16"]
Place = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Source:
    """What draws; None is what the checkpoint says, or LlamaGen's."""

    checkpoint: str
    ema: bool = False
    vq: str | None = None
    vq_weights: str | None = None
    text_weights: str | None = None
    size: int | None = None  # pixels a side
    precision: Precision = "auto"
    device: Place = "auto"


@dataclass(frozen=True)
class Settings:
    """How codes are drawn; None is what the checkpoint was trained to show, or LlamaGen's."""

    cfg_scale: float | None = None
    cfg_interval: tuple[int, int | None] | None = None
    top_k: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Wish:
    """Everything that one call asks for."""

    source: Source
    settings: Settings
    words: tuple[str, ...]
    prompts: Path | None = None
    out: Path = Path("samples")
    count: int = 1
    npz: bool = False
    batch: int | None = None
    compiled: bool | None = None


def read_options(arguments: Sequence[str] | None, prog: str) -> Wish:
    """Return what the words of a command line ask for; ends the process, as argparse does, for --help and wrong use."""
    given = _parser(prog).parse_intermixed_args(arguments)
    source = Source(
        *(given.checkpoint, given.ema, given.vq, given.vq_weights, given.text_weights, given.size),
        *(given.precision, given.device),
    )
    settings = Settings(*(given.cfg_scale, given.cfg_interval, given.top_k, given.temperature, given.top_p, given.seed))
    return Wish(
        *(source, settings, tuple(given.what), given.prompts, given.out, given.count, given.npz, given.batch),
        compiled=given.compiled,
    )


def whole(text: str) -> int:
    """Return a whole number from 1 up. Raises ValueError."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a whole number from 1 up")
    return number


def interval(text: str) -> tuple[int, int | None]:
    """Return the codes that are guided, of `K` (the first K), `A:B` or `A:`. Raises ValueError."""
    first, colon, last = text.rpartition(":")
    start, stop = int(first or 0), int(last) if last else None
    if start < 0 or (stop is not None and stop < start) or (not colon and not last):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted K (the first K codes), A:B or A:")
    return start, stop


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Draw pictures from a checkpoint: this trainer's, or any of LlamaGen's text or class models."
        " Started again after a kill, the same command goes on.",
        epilog="Exit codes: 0 done, 1 could not go on, 2 wrong use, 130 interrupted.",
    )
    add = parser.add_argument
    add("checkpoint", help="a checkpoint's folder, train/TIER/checkpoints, a .safetensors, or a LlamaGen .pt")
    add("what", nargs="*", metavar="PROMPT|CLASS", help="prompts; of a class model numbers and ranges such as 0-9")
    add("--prompts", type=Path, metavar="FILE", help="a prompt (or classes) a line, or a .tsv with a column Prompt")
    add("--out", type=Path, metavar="DIR", default=Path("samples"), help="folder to write to (samples)")
    add("--count", type=whole, metavar="N", default=1, help="pictures of each (1)")
    add("--npz", action="store_true", help="one samples.npz as ADM's evaluation reads it, in place of PNGs")
    _add_source(parser.add_argument_group("what draws"))
    _add_settings(parser.add_argument_group("how codes are drawn (default: what the checkpoint was trained to show)"))
    return parser


def _add_source(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    which = group.add_mutually_exclusive_group()
    which.add_argument("--ema", action="store_true", default=False, help="the running average of the weights")
    which.add_argument(
        "--raw", action="store_false", dest="ema", default=False, help="the weights themselves (default)"
    )
    add("--vq", metavar="NAME", help="tokenizer, such as VQ-16 (default: the one of the training, else by codebook)")
    add("--vq-weights", metavar="FILE", help="its weights; stand-in: seeded random ones")
    add("--text-weights", metavar="FOLDER", help="T5 encoder: a folder or a name in the local cache (flan-t5-xl)")
    add("--size", type=whole, metavar="PIXELS", help="side of a picture (default: that of the training)")
    add("--precision", choices=get_args(Precision), default="auto", help="auto: bf16 on a GPU, fp32 on a CPU")
    add("--device", choices=get_args(Place), default="auto", help="auto: a GPU where there is one")
    add("--batch", type=whole, metavar="N", help="pictures drawn at once (32 on a GPU, 8 on a CPU)")
    add(
        "--compile", action=argparse.BooleanOptionalAction, dest="compiled", help="compile the step (default: on a GPU)"
    )


def _add_settings(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--cfg-scale", type=float, metavar="S", help="classifier-free guidance: u + S (c - u); 1: none")
    add("--cfg-interval", type=interval, metavar="K|A:B", help="guide only the first K codes, or codes A to B - 1")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest codes; 0: all; 1: the likeliest")
    add("--temperature", type=float, metavar="T", help="divide logits by T")
    add("--top-p", type=float, metavar="P", help="then draw from the likeliest codes up to this share")
    add("--seed", type=int, metavar="N", default=0, help="picture b is drawn from seed + b (0)")
