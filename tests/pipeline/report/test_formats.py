"""Numbers as the report writes them, and words of strangers without what a page cannot show."""

from markupsafe import Markup

from pipeline.report.formats import count, fixed, percent, printable


def test_thousands_are_parted_by_thin_spaces():
    assert [count(number) for number in (0, 999, 1234567)] == ["0", "999", "1\u2009234\u2009567"]


def test_digits_after_the_point():
    assert [fixed(2.345, 0), fixed(2.0, 2), fixed(-0.25, 1)] == ["2", "2.00", "-0.2"]
    assert [percent(0.5), percent(1 / 128, 1), percent(1.0)] == ["50%", "0.8%", "100%"]


def test_controls_and_overrides_are_replaced_and_letters_stay():
    assert printable("a\0b\x1b[2Jc\x7fd\x9be") == "a\ufffdb\ufffd[2Jc\ufffdd\ufffde"
    assert printable("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") == "\ufffd" * 9
    plain = "tab\t line\r\n \u05e9\u05dc\u05d5\u05dd\u200f \u2009 \U0001f468\u200d\U0001f33e"
    assert printable(plain) == plain


def test_markup_stays_markup_and_numbers_stay_numbers():
    shown = printable(Markup("<b>\x1b</b>"))
    assert (type(shown), str(shown)) == (Markup, "<b>\ufffd</b>")
    assert printable(0.5) == 0.5
    assert printable(None) is None
