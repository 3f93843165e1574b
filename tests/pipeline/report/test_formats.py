"""Numbers as the report writes them."""

from pipeline.report.formats import count, fixed, percent


def test_thousands_are_parted_by_thin_spaces():
    assert [count(number) for number in (0, 999, 1234567)] == ["0", "999", "1\u2009234\u2009567"]


def test_digits_after_the_point():
    assert [fixed(2.345, 0), fixed(2.0, 2), fixed(-0.25, 1)] == ["2", "2.00", "-0.2"]
    assert [percent(0.5), percent(1 / 128, 1), percent(1.0)] == ["50%", "0.8%", "100%"]
