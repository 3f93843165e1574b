"""Turn what goes wrong on the wire into the reasons of the ledger, and tell faults of this machine from them."""

import errno
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

from filters.fetch.body import BodyFault
from filters.fetch.connector import blocked
from filters.fetch.optout import Receipt
from filters.fetch.url import UrlFault

OURS = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS}
"""Errors that say nothing about the URL: this machine is out of sockets, disk or memory."""
PASSING = {"connection", "incomplete_body", "http_500", "http_502", "http_503", "http_504"}
"""Reasons that a second attempt may cure. `http_429` is not one: it asks for patience, which is politeness's
business."""


class Fault(Exception):
    """Why a URL gave no body. `reason`: one of the ledger's; `detail`: for logs; `is_http`: whether the whole response
    was HTTP."""

    def __init__(self, reason: str, detail: str, is_http: bool = True) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.is_http = reason, detail, is_http


class Refusal(Fault):
    """What a site does not want. `reason`: robots or opted_out; `passing`: whether it may turn out otherwise in a
    moment."""

    def __init__(self, reason: str, receipt: Receipt, passing: bool = False) -> None:
        super().__init__(reason, f"{receipt.rule}: {receipt.value}")
        self.receipt, self.passing = receipt, passing


def is_ours(error: BaseException) -> bool:
    """Say whether an error, or what caused it, is a fault of this machine."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in OURS:
            return True
        seen = seen.__cause__
    return False


def before_header(error: Exception) -> Fault:
    """Return the fault of an error raised before the response's header was whole."""
    return Fault(_reason(error), f"{type(error).__name__}: {error}")


def _reason(error: Exception) -> str:
    if blocked(error):
        return "blocked_address"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientConnectorCertificateError():
            return "tls"
        case aiohttp.InvalidURL():
            return "bad_url"
        case aiohttp.ServerDisconnectedError() if isinstance(error.message, str):
            return "connection"
        case aiohttp.ClientOSError() | OSError():
            return "connection"
        case _:
            return "bad_response"


def in_body(error: Exception) -> Fault:
    """Return the fault of an error raised while the body arrived."""
    if isinstance(error, BodyFault):
        return Fault(error.reason, error.detail)
    # A parser's complaint can come bare, or wrapped when the connection went first; that a body is cut is no such
    # complaint.
    complaint = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    is_http = not isinstance(complaint, HttpProcessingError) or (
        complaint is not error and isinstance(complaint, PayloadEncodingError)
    )
    cut = isinstance(error, aiohttp.ClientError | OSError)
    return Fault("incomplete_body" if cut and is_http else "bad_response", f"{type(error).__name__}: {error}", is_http)


def of_redirect(error: UrlFault) -> Fault:
    """Return the fault of a Location that leads nowhere: a scheme that is not fetched, else the server's mistake."""
    return Fault("blocked_scheme" if error.reason == "blocked_scheme" else "bad_response", error.detail)
