"""Draw pictures from a checkpoint: `python -m pipeline.sample CHECKPOINT PROMPT…`, the same as `pipeline sample`.

Writes OUT/00000.png … (or samples.npz), sheet.png, samples.tsv (picture, seed, prompt) and samples.json (what drew
them). Picture b is drawn from seed + b; started again after a kill, the same command goes on and leaves the same bytes.
From Python: `from pipeline.sample import Sampling, generate`.
"""

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from manifests.files import FormatError, digest_of, out_of_room, read_json, sweep, write_json, writing
from pipeline.evaluation.plots import Grid, Row, save_grid
from pipeline.execution.interrupts import interruptible
from pipeline.execution.progress import clock
from pipeline.sampling.decode import Decoder
from pipeline.sampling.generate import Sampling, generate
from pipeline.sampling.npz import Npz
from pipeline.sampling.options import Wish, read_options
from pipeline.sampling.pngs import Pngs
from pipeline.sampling.prompts import PromptError, read_prompts
from pipeline.training.studio import Studio, open_studio

__all__ = ["Sampling", "generate", "main"]

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
BATCH_GPU, BATCH_CPU = 32, 8
SHEET_ROWS, SHEET_COLUMNS = 12, 6
EVERY_S = 5.0
"""Seconds between progress lines where the output is no terminal."""


@dataclass(frozen=True)
class Work:
    """Pictures to draw: picture b is of prompt b // count."""

    studio: Studio
    prompts: Sequence[str]
    sink: Pngs | Npz
    batch: int
    count: int
    compiled: bool

    @property
    def total(self) -> int:
        """Return the number of pictures."""
        return len(self.prompts) * self.count


def main(arguments: Sequence[str] | None = None, prog: str = "python -m pipeline.sample") -> int:
    """Run the command and return its exit code: 0 done, 1 could not go on, 2 wrong use, 130 interrupted."""
    return run(read_options(arguments, prog))


def run(wish: Wish) -> int:
    """Draw what is wished for and return the exit code."""
    try:
        with interruptible():
            try:
                work = prepare(wish)
            except ValueError as error:
                say(f"error: {error}")
                return MISUSED
            draw(work)
            finish(work, wish.out)
    except KeyboardInterrupt:
        say("\nstopped; what was drawn stays. The same command goes on from there.")
        return INTERRUPTED
    except OSError as error:
        why = "the disk is full; free some room" if out_of_room(error) else f"{error}; mend it"
        say(f"error: {why} and give the same command again: it goes on")
        return FAILED
    return DONE


def prepare(wish: Wish) -> Work:
    """Load what draws, and begin the folder or take it up. Raises ValueError for what cannot work."""
    if "://" in str(wish.out).replace(":/", "://"):
        raise PromptError(f"--out {wish.out}: wanted a folder of this machine")
    words = [*wish.words, *(read_prompts(wish.prompts) if wish.prompts else [])]
    studio = open_studio(wish.source, wish.settings)
    prompts = studio.prompts(words)
    on_gpu = next(studio.gpt.parameters()).device.type == "cuda"
    total = len(prompts) * wish.count
    batch = min(wish.batch or (BATCH_GPU if on_gpu else BATCH_CPU), total)
    sink = Npz(wish.out / "samples.npz", total, studio.size) if wish.npz else Pngs(wish.out, total)
    work = Work(studio, prompts, sink, batch, wish.count, on_gpu if wish.compiled is None else wish.compiled)
    say(f"{studio.says}\n{settings_of(studio.sampling)}; {total:,} pictures, {batch} at once")
    begin(work, wish.out)
    return work


def begin(work: Work, out: Path) -> None:
    """Write what is to be drawn beside the pictures. Raises PromptError where the folder holds other pictures."""
    record, path = record_of(work), out / "samples.json"
    if path.is_file():
        try:
            before: dict[str, Any] = read_json(path)
        except FormatError as error:
            raise PromptError(f"--out {out}: {error}; wanted an empty folder") from error
        changed = [name for name, value in record.items() if before.get(name) != value]
        if changed:
            raise PromptError(
                f"--out {out} holds pictures that were drawn with other {', '.join(changed)} (samples.json): give the"
                " same command to go on, or another --out"
            )
        sweep(out)
        return
    if out.is_dir() and any(out.glob("[0-9]*.png")):
        raise PromptError(
            f"--out {out} holds pictures without a samples.json; wanted an empty folder, or another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    with writing(out / "samples.tsv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, delimiter="\t", lineterminator="\n")
        lines.writerow(("picture", "seed", "prompt"))
        for number in range(work.total):
            named = work.sink.path(number).name if isinstance(work.sink, Pngs) else number
            lines.writerow((named, work.studio.sampling.seed + number, work.prompts[number // work.count]))
    write_json(path, record)


def record_of(work: Work) -> dict[str, Any]:
    """Return what the pictures depend on."""
    sampling = work.studio.sampling
    return {
        **work.studio.identity,
        "sampling": {
            **{name: getattr(sampling, name) for name in ("cfg_scale", "top_k", "temperature", "top_p", "seed")},
            "cfg_interval": list(sampling.cfg_interval),
        },
        "prompts": {"sha256": digest_of(list(work.prompts)), "count": work.count, "pictures": work.total},
        "batch": work.batch,
        "compiled": work.compiled,
        "form": "npz" if isinstance(work.sink, Npz) else "png",
    }


def draw(work: Work) -> None:
    """Draw the pictures that are not there yet, batch by batch."""
    studio, n_tokens = work.studio, work.studio.n_tokens
    guided = studio.sampling.guided_until(n_tokens) > 0
    there = work.sink.pictures // work.batch * work.batch if work.sink.pictures < work.total else work.total
    if there:
        say(f"{there:,} pictures are there already")
    progress = Progress(work.total, n_tokens, there, there)
    decoder = Told(studio.gpt, work.batch * (2 if guided else 1), n_tokens, compiled=work.compiled)
    decoder.progress = progress
    for first in range(there, work.total, work.batch):
        numbers = range(first, min(first + work.batch, work.total))
        texts = [work.prompts[number // work.count] for number in numbers]
        texts += texts[-1:] * (work.batch - len(texts))  # the last batch has the same shape; what is too much is cut
        sampling = replace(studio.sampling, seed=studio.sampling.seed + first)
        progress.batch = len(numbers)
        codes_BN = generate(studio.gpt, studio.of(texts), n_tokens, sampling, decoder=decoder)
        work.sink.add(first, studio.pixels(codes_BN[: len(numbers)]))
        progress.done, progress.codes = numbers.stop, 0
        progress.show(last=numbers.stop == work.total)
    work.sink.finish()


@dataclass
class Progress:
    """How far the drawing is: one live line on a terminal, a line every 5 s elsewhere."""

    total: int
    n_tokens: int
    there: int  # pictures that were there before
    done: int
    batch: int = 0  # pictures that are being drawn
    codes: int = 0  # codes that each of them has
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    def line(self, seconds: float) -> str:
        """Return pictures drawn, the codes of those under way, pictures per second and the time that is left."""
        drawn = self.done - self.there + self.batch * self.codes / self.n_tokens
        left = self.total - self.there - drawn
        rate = drawn / max(seconds, 1e-9)
        under_way = f", code {self.codes:,}/{self.n_tokens:,} of the next {self.batch}" if self.codes else ""
        eta = clock(left / rate) if rate else "?"
        return f"  {self.done:,}/{self.total:,} pictures{under_way}  {rate:.3g}/s  ETA {eta}"

    def show(self, last: bool = False) -> None:
        """Print the line if it is time to."""
        live, now = sys.stderr.isatty(), time.monotonic()
        if last or now - self.shown >= (0.2 if live else EVERY_S):
            self.shown = now
            line = self.line(now - self.started)
            print(
                f"\r\x1b[K{line}" if live else line, end="" if live and not last else "\n", file=sys.stderr, flush=True
            )


class Told(Decoder):
    """A decoder that tells of every code."""

    progress: Progress

    def advance(self, codes_B: Tensor) -> Tensor:
        """Read one more code in each row, and say so."""
        logits_BV = super().advance(codes_B)
        self.progress.codes += 1
        self.progress.show()
        return logits_BV


def finish(work: Work, out: Path) -> None:
    """Write the sheet of the first pictures, and say where everything is."""
    shown = range(min(SHEET_ROWS, len(work.prompts)))
    columns = range(min(SHEET_COLUMNS, work.count))
    rows = [
        Row(work.prompts[row], [Image.fromarray(work.sink.read(row * work.count + column)) for column in columns])
        for row in shown
    ]
    names = [f"sample {column + 1}" for column in columns]
    note = f"{work.studio.says}\n{settings_of(work.studio.sampling)}"
    save_grid(out / "sheet.png", Grid(f"{work.total:,} pictures", names, rows, note))
    what = "samples.npz" if isinstance(work.sink, Npz) else f"{work.total:,} PNGs"
    print(f"pictures: {out} ({what}, sheet.png, samples.tsv, samples.json)", flush=True)


def settings_of(sampling: Sampling) -> str:
    """Return the settings in words."""
    start, stop = sampling.cfg_interval
    within = "" if (start, stop) == (0, None) else f" for codes {start} to {'the last' if stop is None else stop - 1}"
    return (
        f"cfg {sampling.cfg_scale:g}{within}, top-k {sampling.top_k or 'all'}, temperature {sampling.temperature:g},"
        f" top-p {sampling.top_p:g}, seed {sampling.seed}"
    )


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
