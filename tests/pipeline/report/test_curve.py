"""Where the points of a curve come to lie: 884 units across from x = 46, 250 down."""

import pytest

from pipeline.report.curve import draw_curve


def test_two_points_and_their_grid():
    curve = draw_curve([(0, 4), (10, 2)])
    assert (curve.start, curve.stop, curve.last) == (0, 10, 2)
    # the axis ends at 4 x 1.04 = 4.16: 4 lies 250 x 0.16 / 4.16 below its end, 2 lies 250 x 2.16 / 4.16 below
    assert curve.points == (pytest.approx((46, 9.6154), abs=1e-4), pytest.approx((930, 129.8077), abs=1e-4))
    assert curve.end == curve.points[1]
    assert [line.value for line in curve.grid] == pytest.approx([0, 1.04, 2.08, 3.12, 4.16])
    assert [line.y for line in curve.grid] == pytest.approx([250, 187.5, 125, 62.5, 0])


def test_points_need_not_begin_at_zero_nor_lie_in_order():
    curve = draw_curve([(300, 1.0), (100, 1.0), (200, 1.0)])
    assert (curve.start, curve.stop) == (100, 300)
    assert [x for x, _ in curve.points] == [930, 46, 488]


def test_one_point_and_a_loss_of_nothing_are_drawn_too():
    assert draw_curve([(7, 0.0)]).points == ((46.0, 250.0),)
    assert [line.value for line in draw_curve([(7, 0.0)]).grid] == [0, 0.25, 0.5, 0.75, 1]


def test_values_below_zero_stay_on_the_surface():
    curve = draw_curve([(0, -1), (1, -3)])  # the axis goes from -3 to 1
    assert [y for _, y in curve.points] == [125, 250]


def test_a_second_line_lies_on_the_same_axes():
    curve = draw_curve([(0, 4), (10, 2)], [(5, 6.0), (20, 3.0)])
    # the axes go to 6 x 1.04 = 6.24 and from 0 to 20
    assert curve.measured == (pytest.approx((46 + 884 / 4, 250 * 0.24 / 6.24)), pytest.approx((930, 250 * 3.24 / 6.24)))
    assert curve.end == pytest.approx((46 + 884 / 2, 250 * 4.24 / 6.24))
    assert (curve.stop, curve.last, curve.last_measured) == (20, 2, 3.0)
    assert draw_curve([(0, 4)]).last_measured is None


def test_no_point_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        draw_curve([])
