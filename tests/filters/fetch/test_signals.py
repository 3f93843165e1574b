"""filters/fetch/signals.py: what an attempt's end says of its host."""

import pytest

from filters.fetch.signals import HostSignal, signal_of


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
