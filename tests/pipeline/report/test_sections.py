"""The sections of the page, from facts written here."""

from dataclasses import fields, is_dataclass

import pytest

from pipeline.report.examples import Example, Examples
from pipeline.report.facts import Facts, Fates, Stages
from pipeline.report.render import render_report
from pipeline.report.sections import Figure, FunnelRow, Page, page_of
from pipeline.report.training import LossCurve, Training
from tests.support.report_runs import flat_jpeg


def page(fates=None, **facts):
    return page_of(Facts("demo/run", Stages(fates=fates or Fates(), digests={"filter": "5f" * 32, "old": ""}), **facts))


def tiles(number):
    rows = [Example(str(n), "word " * 20, "", "kept", jpeg=flat_jpeg(n, 20, 10)) for n in range(number)]
    return page(examples=Examples({"pretrain": tuple(rows)})).head.mosaic


def test_a_run_without_rows_has_a_head_alone():
    empty = page()
    assert (empty.title, empty.head.name, empty.head.has_rows) == ("Tessera: demo/run", "demo/run", False)
    assert empty.head.digests == {"filter": "5f5f5f5f5f5f"}
    assert empty.head.figures[1] == Figure(0, "kept, none yet", "keep")
    assert (empty.funnel, empty.kept, empty.dropped, empty.planted) == (None, None, None, None)
    assert (empty.curves, empty.sheets, empty.weights, empty.duplicates) == ((), (), (), ())


def test_the_large_numbers():
    head = page(Fates(8, 2, {"dns": 5, "size": 1}, {"pretrain": 2, "finetune": 1})).head
    assert head.figures == (
        Figure(8, "rows in"),
        Figure(2, "kept, 25% of the rows", "keep"),
        Figure(6, "dropped, each with a reason", "drop"),
        Figure(2, "in tier pretrain"),
        Figure(1, "in tier finetune"),
    )


def test_the_funnel_takes_each_groups_rows_in_the_order_of_the_chain():
    funnel = page(Fates(8, 2, {"size": 1, "dns": 3, "tls": 1, "near_duplicate": 1})).funnel
    assert funnel.rows == (
        FunnelRow("rows of the table", 8, 0, 100.0, 0.0),
        FunnelRow("address and text are usable", 8, 0, 100.0, 0.0),
        FunnelRow("the picture arrived", 4, 4, 50.0, 50.0),
        FunnelRow("it is a sound picture", 4, 0, 50.0, 0.0),
        FunnelRow("it passes the rules", 3, 1, 37.5, 12.5),
        FunnelRow("it is the first of its kind", 2, 1, 25.0, 12.5),
    )


INPUT = ("bad_url", "broken_line", "broken_tar", "broken_row_group", "missing_value")
FETCH = ("missing_file", "blocked_path", "http_404", "robots")


def test_rows_that_were_never_read_are_not_dropped_by_rules():
    """broken_line, broken_tar, missing_file and blocked_path were counted among the rules' rows."""
    funnel = page(Fates(10, 0, {**dict.fromkeys((*INPUT, *FETCH), 1), "size": 1})).funnel
    assert [(row.name, row.lost) for row in funnel.rows] == [
        ("rows of the table", 0),
        ("address and text are usable", 5),
        ("the picture arrived", 4),
        ("it is a sound picture", 0),
        ("it passes the rules", 1),
        ("it is the first of its kind", 0),
    ]


def test_refusals_stand_below_the_funnel_the_most_frequent_first():
    refusals = {"robots.txt": 2, "X-Robots-Tag": 5, "XMP plus:DataMining": 2}
    made = page_of(Facts("run", Stages(fates=Fates(20, 11, {"robots": 2, "opted_out": 7}), refusals=refusals)))
    assert made.funnel.refusals == (("X-Robots-Tag", 5), ("XMP plus:DataMining", 2), ("robots.txt", 2))
    html = render_report(Facts("run", Stages(fates=Fates(20, 11, {"opted_out": 9}), refusals=refusals)))
    assert "XMP plus:DataMining" in html
    assert "Refused in words for machines" not in render_report(Facts("run", Stages(fates=Fates(2, 2))))


def test_rows_that_lists_of_hashes_removed_stand_below_it_by_list():
    removed = {"b.csv": 2, "a.txt": 2, "c.parquet": 7}
    stages = Stages(fates=Fates(20, 9, {"removed": 11}), removed=removed)
    assert page_of(Facts("run", stages)).funnel.removed == (("c.parquet", 7), ("a.txt", 2), ("b.csv", 2))
    assert "c.parquet" in render_report(Facts("run", stages))
    assert "by lists of hashes" not in render_report(Facts("run", Stages(fates=Fates(2, 2))))


@pytest.mark.parametrize(("rows", "columns", "shown"), [(0, 0, 0), (5, 5, 5), (13, 12, 12), (25, 12, 24), (31, 15, 30)])
def test_the_mosaic_has_full_lines(rows, columns, shown):
    mosaic = tiles(rows)
    assert (mosaic.columns, len(mosaic.tiles)) == (columns, shown)
    assert all(tile.words == "word " * 12 for tile in mosaic.tiles)


def test_one_point_is_no_curve():
    curves = (LossCurve("short", ((1.0, 2.0),)), LossCurve("pretrain", ((0.0, 4.0), (10.0, 2.0))))
    drawn = page(training=Training(curves)).curves
    assert [(one.tier, one.curve.last) for one in drawn] == [("pretrain", 2.0)]


def test_what_is_held_out_is_drawn_into_the_same_curve():
    curves = (LossCurve("pretrain", ((0.0, 4.0), (10.0, 2.0)), ((10.0, 3.0),)),)
    (drawn,) = page(training=Training(curves)).curves
    assert (len(drawn.curve.measured), drawn.curve.last_measured) == (1, 3.0)


def test_credits_lose_the_mark_of_their_first_heading_alone():
    assert page_of(Facts("run"), "# Credits\n\n# Met\n").attribution == "Credits\n\n# Met\n"


def test_what_templates_read_cannot_be_changed():
    shown = page(Fates(8, 2))
    assert isinstance(shown, Page)
    parts = [value for value in (getattr(shown, field.name) for field in fields(shown)) if is_dataclass(value)]
    assert len(parts) == 2  # the head and the funnel
    for part in (shown, *parts):
        with pytest.raises(AttributeError):
            setattr(part, fields(part)[0].name, None)
