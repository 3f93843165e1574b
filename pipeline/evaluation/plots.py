"""Draw what training leaves to look at: a grid of pictures beside their prompts, and the loss curve."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from manifests.extras import how_to_get
from manifests.files import parse_json, parsing, writing

PAPER, INK, FAINT = (255, 255, 255), (28, 30, 36), (110, 114, 124)
GAP, TEXT_WIDTH, FONT_SIZE = 12, 230, 15


@dataclass(frozen=True)
class Row:
    """One line of a grid: a prompt and the pictures that belong to it; None leaves a cell empty."""

    prompt: str
    pictures: Sequence[Image.Image | None]


@dataclass(frozen=True)
class Grid:
    """A sheet: heading, names of the picture columns, rows, and lines below."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""


def save_grid(path: Path, grid: Grid, cell: int = 128) -> None:
    """Write the grid as a PNG, each picture `cell` pixels wide, by temporary name and rename."""
    width = TEXT_WIDTH + len(grid.columns) * (cell + GAP) + 2 * GAP
    note = [part for line in grid.note.splitlines() for part in textwrap.wrap(line, max(20, width // 8))]
    top = 3 * GAP + 2 * FONT_SIZE + 10
    sheet = Image.new("RGB", (width, top + len(grid.rows) * (cell + GAP) + (len(note) + 1) * (FONT_SIZE + 5)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), grid.heading, INK, _font(FONT_SIZE + 3))
    for column, name in enumerate(grid.columns):
        pen.text((_left(column, cell), top - FONT_SIZE - 9), name, FAINT, _font(FONT_SIZE - 1))
    for number, row in enumerate(grid.rows):
        _draw_row(sheet, row, top + number * (cell + GAP), cell)
    for number, line in enumerate(note):
        pen.text(
            (GAP, sheet.height - (len(note) - number) * (FONT_SIZE + 5) - GAP // 2), line, FAINT, _font(FONT_SIZE - 1)
        )
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _draw_row(sheet: Image.Image, row: Row, top: int, cell: int) -> None:
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(textwrap.wrap(row.prompt, 27)[:5]):
        pen.text((GAP, top + cell // 2 - 30 + number * (FONT_SIZE + 4)), line, INK, _font(FONT_SIZE))
    for column, picture in enumerate(row.pictures):
        if picture is None:
            continue
        left = _left(column, cell)
        resample = Image.Resampling.NEAREST if picture.width < cell else Image.Resampling.LANCZOS
        sheet.paste(picture.convert("RGB").resize((cell, cell), resample), (left, top))
        pen.rectangle((left - 1, top - 1, left + cell, top + cell), outline=(222, 224, 230))


def _left(column: int, cell: int) -> int:
    return TEXT_WIDTH + GAP + column * (cell + GAP)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _logged(metrics: Path, name: str) -> list[tuple[int, float]]:
    """Return (step, figure) of the lines of a metrics.jsonl: those of training have "loss", the others
    "validation_loss". Raises FormatError for a line that is none, OSError."""
    with parsing(metrics, "a line has no step and loss"):
        lines = [parse_json(metrics, line) for line in metrics.read_bytes().splitlines()]
        figures = [(int(line["step"]), line.get(name) if "validation_loss" in line else line["loss"]) for line in lines]
        of_training = name == "loss"
        return [
            (step, float(figure))
            for (step, figure), line in zip(figures, lines, strict=True)
            if figure is not None and ("validation_loss" not in line) == of_training
        ]


def save_loss_curve(path: Path, metrics: Path, title: str) -> str:
    """Draw the loss over steps from a metrics.jsonl; return what to tell the user where it cannot be drawn."""
    lines = _logged(metrics, "loss") if metrics.is_file() else []
    if not lines:
        return "no loss curve: no step has been logged yet"
    try:
        from matplotlib.figure import Figure
    except ImportError:
        get = how_to_get("evaluate")
        return f"no loss curve: matplotlib is not installed ({get}); the numbers are in {metrics}"
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([step for step, _ in lines], [loss for _, loss in lines], color="#2b6cb0", linewidth=1.6)
    if measured := _logged(metrics, "validation_loss"):
        axes.plot(*zip(*measured, strict=True), color="#dd6b20", linewidth=1.6, marker=".", label="validation")
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="loss, nats per code", title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png")
    return ""
