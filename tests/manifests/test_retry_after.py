"""manifests/retry_after.py: what the header asks for."""

import pytest

from manifests.retry_after import retry_after


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
