"""Read what the end of an attempt says of its host: that it is fine, asks for patience, or failed."""

from enum import Enum


class HostSignal(Enum):
    """How a host behaved in one request: `fine`, `busy` (it asks for patience) or `failed` (connection, timeout,
    5xx)."""

    FINE = "fine"
    BUSY = "busy"
    FAILED = "failed"


def signal_of(reason: str | None, wait_s: float | None, passing: bool) -> HostSignal:
    """Return what an attempt's end says of its host. `wait_s`: what Retry-After said; `passing`: of a Refusal."""
    if reason == "http_429" or (reason == "http_503" and wait_s is not None) or passing:
        return HostSignal.BUSY
    if reason in ("connection", "timeout") or (reason or "").startswith("http_5"):
        return HostSignal.FAILED
    return HostSignal.FINE
