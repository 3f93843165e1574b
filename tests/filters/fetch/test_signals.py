"""filters/fetch/signals.py: what Retry-After asks for, and what an attempt's end says of its host."""

import pytest

from filters.fetch.signals import HostSignal, retry_after, signal_of


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120),
        (" 0 ", None, 0),
        ("9" * 40, None, 999_999_999_999),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2015 07:28:30 GMT", None, 0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "never", 0),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("", None, None),
        (None, None, None),
        ("Wed, 99 Foo 2015 77:28:30 GMT", None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry_after(value, date) == seconds


@pytest.mark.parametrize(
    ("reason", "wait_s", "passing", "signal"),
    [
        (None, None, False, HostSignal.FINE),
        ("http_404", None, False, HostSignal.FINE),
        ("robots", None, False, HostSignal.FINE),
        ("robots", None, True, HostSignal.BUSY),
        ("http_429", None, False, HostSignal.BUSY),
        ("http_503", 5.0, False, HostSignal.BUSY),
        ("http_503", None, False, HostSignal.FAILED),
        ("http_500", None, False, HostSignal.FAILED),
        ("timeout", None, False, HostSignal.FAILED),
        ("connection", None, False, HostSignal.FAILED),
        ("bad_response", None, False, HostSignal.FINE),
    ],
)
def test_what_an_end_says(reason: str | None, wait_s: float | None, passing: bool, signal: HostSignal) -> None:
    assert signal_of(reason, wait_s, passing) is signal
