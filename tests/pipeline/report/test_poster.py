"""The picture of a report's top."""

import sys

import pytest
from PIL import Image

from manifests.extras import MissingExtra
from pipeline.report.facts import Facts, Fates, Stages, gather
from pipeline.report.poster import _funnel, draw_poster
from tests.support.report_runs import write_run, write_truth


def test_the_poster_of_a_run_begins_with_its_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    write_truth(tmp_path / "truth.parquet")
    facts = gather(write_run(tmp_path / "run"), tmp_path / "truth.parquet")
    path = draw_poster(facts, tmp_path / "docs" / "report.png")
    assert path == tmp_path / "docs" / "report.png"
    with Image.open(path) as picture:
        assert (picture.size, picture.format) == ((1680, 1368), "PNG")
        # the mosaic's 18 squares over 1680 pixels, each of one colour: (n x 5, 120, 90) as written
        _, green, blue = picture.convert("RGB").getpixel((40, 40))
    assert abs(green - 120) < 8
    assert abs(blue - 90) < 8


def test_a_run_without_rows_has_a_poster_too_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    path = draw_poster(Facts("demo/run"), tmp_path / "report.png")
    assert path.read_bytes() == draw_poster(Facts("demo/run"), tmp_path / "again.png").read_bytes()
    with Image.open(path) as picture:
        assert picture.size == (1680, 1368)
        assert picture.convert("RGB").getpixel((2, 2)) == (0xFA, 0xF8, 0xF5)


def test_the_posters_funnel_takes_rows_by_the_groups_of_their_reasons():
    """broken_line and missing_file were counted among the rows that the rules drop."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    dropped = {"broken_line": 3, "broken_tar": 1, "missing_file": 2, "blocked_path": 1, "size": 1}
    _funnel(figure, Facts("run", Stages(fates=Fates(10, 2, dropped, {}))))
    (axes,) = figure.axes
    # pairs of bars: what is left and what was lost, from the table down to the set
    widths = [round(bar.get_width()) for bar in axes.patches]
    assert list(zip(widths[::2], widths[1::2], strict=True)) == [(10, 0), (6, 4), (3, 3), (3, 0), (2, 1), (2, 0)]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tessera-t2i\[report\]'"):
        draw_poster(Facts("run"), tmp_path / "report.png")
