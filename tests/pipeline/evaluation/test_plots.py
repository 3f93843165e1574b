"""Sheets of pictures and the loss curve: where each pixel of a sheet lies, and what is said where nothing is drawn."""

import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.plots import Grid, Row, save_grid, save_loss_curve

RED, GREEN, WHITE = (200, 0, 0), (0, 200, 0), (255, 255, 255)
TOP, LEFT = 76, 242
"""Where the first cell begins: below 3 x 12 px of gaps and 2 lines of 15 px and 10 px; right of 230 px of text and a
gap of 12."""


def flat(colour: tuple[int, int, int], side: int) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def drawn(path, grid: Grid, cell: int) -> np.ndarray:
    save_grid(path, grid, cell)
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        return np.asarray(sheet)


def test_each_picture_stands_in_its_cell(tmp_path):
    rows = [Row("a", [flat(RED, 4), flat(GREEN, 64)]), Row("b", [None, flat(RED, 20)])]
    sheet = drawn(tmp_path / "sheet.png", Grid("heading", ["one", "two"], rows), cell=20)
    # 230 + 2 x (20 + 12) + 24 wide; 76 + 2 x 32 and a line of 20 below
    assert sheet.shape == (76 + 64 + 20, 318, 3)
    for row, column, colour in ((0, 0, RED), (0, 1, GREEN), (1, 0, WHITE), (1, 1, RED)):
        top, left = TOP + row * 32, LEFT + column * 32
        assert (sheet[top : top + 20, left : left + 20] == colour).all(), (row, column)
    assert (sheet[TOP - 1, LEFT : LEFT + 20] == (222, 224, 230)).all()  # the frame of a picture
    assert (sheet[TOP + 31, LEFT : LEFT + 20] == WHITE).all()  # no picture, no frame


def test_small_pictures_keep_hard_edges_and_large_ones_are_averaged(tmp_path):
    dots = Image.fromarray(np.array([[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]], np.uint8))
    stripes = Image.fromarray(np.tile(np.array([[[0] * 3], [[255] * 3]], np.uint8), (40, 80, 1)))
    sheet = drawn(tmp_path / "sheet.png", Grid("", ["", ""], [Row("", [dots, stripes])]), cell=20)
    small = sheet[TOP : TOP + 20, LEFT : LEFT + 20]
    assert set(np.unique(small)) == {0, 255}
    assert (small[:10, :10] == 0).all()
    assert (small[:10, 10:] == 255).all()
    large = sheet[TOP + 4 : TOP + 16, LEFT + 32 + 4 : LEFT + 32 + 16]  # rows in turn black and white, four to a pixel
    assert abs(large.astype(int) - 127).max() < 12


def test_a_note_makes_room_and_the_same_grid_gives_the_same_bytes(tmp_path):
    grid = Grid("heading", ["one"], [Row("a prompt " * 40, [flat(RED, 8)])], "first\nsecond")
    sheet = drawn(tmp_path / "a.png", grid, cell=20)
    assert sheet.shape == (76 + 32 + 3 * 20, 286, 3)
    assert sheet[TOP + 32 :].min() < 150  # the note is written there
    assert (sheet[TOP + 32 :, :10] == 255).all()
    save_grid(tmp_path / "b.png", grid, cell=20)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_sheet_without_rows_is_its_heading(tmp_path):
    assert drawn(tmp_path / "sheet.png", Grid("heading", [], []), cell=20).shape == (96, 254, 3)


@pytest.mark.parametrize("lines", [None, ""], ids=["no file", "no line"])
def test_no_step_no_curve(tmp_path, lines):
    metrics = tmp_path / "metrics.jsonl"
    if lines is not None:
        metrics.write_text(lines)
    assert save_loss_curve(tmp_path / "loss.png", metrics, "t") == "no loss curve: no step has been logged yet"
    assert not (tmp_path / "loss.png").exists()


def test_the_curve_falls_with_the_loss(tmp_path):
    pytest.importorskip("matplotlib")
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {step}, "loss": {10 - step}}}\n' for step in range(1, 10)))
    assert save_loss_curve(tmp_path / "loss.png", metrics, "GPT-demo") == ""
    with Image.open(tmp_path / "loss.png") as curve:
        assert curve.size == (840, 480)  # 7 x 4 inches at 120 dots
        pixels = np.asarray(curve.convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 2] - pixels[..., 0] > 80) & (pixels[..., 2] > 140))  # the blue line
    assert rows[columns < 200].mean() < 120 < 300 < rows[columns > 700].mean()


def test_the_validation_loss_has_a_curve_of_its_own(tmp_path):
    pytest.importorskip("matplotlib")
    metrics = tmp_path / "metrics.jsonl"
    lines = [f'{{"step": {step}, "loss": {10 - step}}}\n{{"step": {step}, "validation_loss": 9.0}}' for step in (1, 9)]
    metrics.write_text("\n".join([*lines, '{"step": 10, "loss": null}']) + "\n")
    assert save_loss_curve(tmp_path / "loss.png", metrics, "GPT-demo") == ""
    with Image.open(tmp_path / "loss.png") as curve:
        pixels = np.asarray(curve.convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] - pixels[..., 2] > 150) & (pixels[..., 1] > 80))  # the orange line
    assert columns.max() - columns.min() > 500
    assert np.median(rows) < 120


def test_without_matplotlib_the_user_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 6.2}\n')
    says = save_loss_curve(tmp_path / "loss.png", metrics, "t")
    assert says == (
        "no loss curve: matplotlib is not installed (pip install 'tessera-t2i[evaluate]'); the numbers are in"
        f" {metrics}"
    )
    assert not (tmp_path / "loss.png").exists()
