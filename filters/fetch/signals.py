"""Read what the end of an attempt says of its host: that it is fine, asks for patience, or failed."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum


class HostSignal(Enum):
    """How a host behaved in one request: `fine`, `busy` (it asks for patience) or `failed` (connection, timeout,
    5xx)."""

    FINE = "fine"
    BUSY = "busy"
    FAILED = "failed"


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


def signal_of(reason: str | None, wait_s: float | None, passing: bool) -> HostSignal:
    """Return what an attempt's end says of its host. `wait_s`: what Retry-After said; `passing`: of a Refusal."""
    if reason == "http_429" or (reason == "http_503" and wait_s is not None) or passing:
        return HostSignal.BUSY
    if reason in ("connection", "timeout") or (reason or "").startswith("http_5"):
        return HostSignal.FAILED
    return HostSignal.FINE
