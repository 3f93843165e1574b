"""Draw the top of a report as one picture, for a README: mosaic, funnel, filters against the truth, a few pairs of each
fate."""

import io
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image

from manifests.extras import need
from manifests.files import writing
from manifests.reasons import by_group
from pipeline.report.examples import Example
from pipeline.report.facts import STAND_IN, STEPS, Facts
from pipeline.report.formats import count

PAPER, INK, SOFT, LINE = "#faf8f5", "#22201d", "#6f6a63", "#e6e0d8"
KEEP, DROP, DROP_LIGHT, BLUE, AMBER = "#2f7d6b", "#c8553d", "#f6e1da", "#3d6fa8", "#b98a2f"
WIDTH, HEIGHT, DPI = 14.0, 11.4, 120
"""Inches and dots per inch: 1680 x 1368 pixels."""
CARDS = 8
MOSAIC_COLUMNS = 18


def draw_poster(facts: Facts, path: Path) -> Path:
    """Write the picture of a run's report to `path` (PNG) and return it. Needs matplotlib (extra `report`)."""
    figure = need("matplotlib.figure", "report").Figure(figsize=(WIDTH, HEIGHT), facecolor=PAPER)
    canvas = need("matplotlib.backends.backend_agg", "report").FigureCanvasAgg(figure)
    _mosaic(figure, facts)
    _heading(figure, facts)
    _funnel(figure, facts)
    _quality(figure, facts)
    _strip(figure, [example for example in facts.examples.mosaic() if example.text][:CARDS], 0.185, "kept")
    _strip(figure, _one_of_each(facts), -0.008, "dropped")
    with writing(path) as temporary:
        canvas.print_figure(temporary, dpi=DPI, facecolor=PAPER, format="png", metadata={"Software": None})
    return path


def _one_of_each(facts: Facts) -> list[Example]:
    """Return one dropped row with a picture of each reason, then a second of each, most frequent reasons first."""
    shown = [
        [example for example in facts.examples.dropped.get(reason, []) if example.jpeg]
        for reason in facts.fates.dropped
    ]
    return [examples[turn] for turn in range(2) for examples in shown if turn < len(examples)][:CARDS]


def _open(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _square(jpeg: bytes) -> Image.Image:
    picture = _open(jpeg)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((128, 128), Image.Resampling.LANCZOS)


def _blank(figure: Any, box: tuple[float, float, float, float]) -> Any:
    """Return axes without ticks and frame at (left, bottom, width, height), shares of the figure."""
    axes = figure.add_axes(box)
    axes.set_facecolor("none")
    axes.set_axis_off()
    return axes


def _mosaic(figure: Any, facts: Facts) -> None:
    """Lay squares over the whole width: two lines where there are enough, else one."""
    examples = facts.examples.mosaic()
    lines = 2 if len(examples) >= 2 * MOSAIC_COLUMNS else 1
    columns = min(len(examples) // lines, MOSAIC_COLUMNS + 2)
    if columns < MOSAIC_COLUMNS // 2:
        return
    sheet = Image.new("RGB", (columns * 132 - 4, lines * 132 - 4), PAPER)
    for number, example in enumerate(examples[: lines * columns]):
        sheet.paste(_square(example.jpeg), (number % columns * 132, number // columns * 132))
    height = WIDTH / HEIGHT * sheet.height / sheet.width
    _blank(figure, (0, 1 - height, 1, height)).imshow(sheet, aspect="auto", interpolation="lanczos")


def _heading(figure: Any, facts: Facts) -> None:
    title = figure.text(0.035, 0.825, "Tessera", fontsize=25, weight="bold", color=INK)
    end = title.get_window_extent(figure.canvas.get_renderer()).x1 / figure.bbox.width
    figure.text(end + 0.012, 0.825, facts.name, fontsize=25, color=SOFT)
    figures = [
        (count(facts.fates.rows_in), "rows in", INK),
        (count(facts.fates.kept), "kept", KEEP),
        (count(sum(facts.fates.dropped.values())), "dropped, each with a reason", DROP),
    ]
    figures += [(count(rows), f"in tier {name}", INK) for name, rows in list(facts.fates.tiers.items())[:3]]
    x = 0.035
    for number, words, colour in figures:
        figure.text(x, 0.778, number, fontsize=21, weight="bold", color=colour)
        figure.text(x, 0.757, words, fontsize=10.5, color=SOFT)
        x += max(0.095, 0.0072 * len(words) + 0.03)
    if facts.has_stand_ins:
        figure.text(0.965, 0.829, f"some scores come from {STAND_IN}", fontsize=10.5, color=AMBER, ha="right")


def _funnel(figure: Any, facts: Facts) -> None:
    axes = _blank(figure, (0.2, 0.43, 0.24, 0.27))
    whole = rest = facts.fates.rows_in
    steps = [("rows of the table", whole, 0)]
    for group, lost in by_group(facts.fates.dropped).items():
        rest -= lost
        steps.append((STEPS[group], rest, lost))
    for place, (name, rest, lost) in enumerate(steps):
        axes.barh(-place, rest, height=0.68, color=KEEP)
        axes.barh(-place, lost, left=rest, height=0.68, color=DROP_LIGHT, edgecolor=DROP, hatch="/////", linewidth=0)
        axes.text(-whole * 0.03, -place, name, ha="right", va="center", fontsize=11.5, color=INK)
        axes.text(
            rest + lost + whole * 0.025,
            -place,
            f"{count(rest)}" + (f"  \u2212{count(lost)}" if lost else ""),
            va="center",
            fontsize=11,
            color=INK,
        )
    axes.set_xlim(0, max(1, whole) * 1.0)
    figure.text(0.035, 0.712, "From rows to pairs", fontsize=14.5, weight="bold", color=INK)


def _quality(figure: Any, facts: Facts) -> None:
    """Draw precision and recall of each filter as two bars."""
    qualities = facts.planted.qualities[:8] if facts.planted else ()
    if not qualities:
        return
    figure.text(0.535, 0.712, "Filters against what was planted", fontsize=14.5, weight="bold", color=INK)
    axes = _blank(figure, (0.645, 0.43, 0.3, 0.27))
    axes.set_xlim(0, 1.12)
    axes.set_ylim(-len(qualities) + 0.4, 0.9)
    for place, quality in enumerate(qualities):
        axes.text(-0.03, -place, quality.filter.replace("_", " "), ha="right", va="center", fontsize=11.5, color=INK)
        for share, shift, colour in ((quality.precision, 0.17, BLUE), (quality.recall, -0.17, KEEP)):
            axes.barh(-place + shift, 1.0, height=0.26, color=LINE)
            axes.barh(-place + shift, share or 0.0, height=0.26, color=colour)
            axes.text(
                1.02, -place + shift, "n/a" if share is None else f"{share:.0%}", va="center", fontsize=8.5, color=SOFT
            )
    figure.text(0.83, 0.714, "precision", fontsize=11, color=BLUE)
    figure.text(0.895, 0.714, "recall", fontsize=11, color=KEEP)


def _strip(figure: Any, examples: list[Example], bottom: float, title: str) -> None:
    """Draw one line of pictures, with words below; a dropped one with its reason above."""
    if not examples:
        return
    kept = title == "kept"
    figure.text(0.035, bottom + 0.208, title.capitalize(), fontsize=14.5, weight="bold", color=KEEP if kept else DROP)
    width = 0.93 / CARDS
    for place, example in enumerate(examples):
        left = 0.035 + place * width
        axes = _blank(figure, (left, bottom + 0.075, width * 0.9, 0.112))
        axes.imshow(_open(example.jpeg), interpolation="lanczos")
        axes.set_anchor("NW")
        words = textwrap.shorten(example.text, 44, placeholder="…") if kept else example.reason.replace("_", " ")
        lines = "\n".join(textwrap.wrap(words, 19)[:3])
        figure.text(left, bottom + 0.068, lines, fontsize=9.5, color=SOFT if kept else DROP, va="top", linespacing=1.3)
