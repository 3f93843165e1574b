"""Read how long a server asks to be left alone: the header Retry-After (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date as seen from the answer's `date`.
    None: nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = _moment(text)
        return max(0.0, (until - _moment(date or "")).total_seconds())
    except ValueError:
        pass
    try:
        return max(0.0, (_moment(text) - datetime.now(UTC)).total_seconds())
    except ValueError:
        return None


def _moment(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(str(error)) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
