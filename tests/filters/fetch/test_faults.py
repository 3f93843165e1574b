"""Errors of the wire as reasons of the ledger, and errors of this machine, which are none."""

import errno
import socket
import ssl

import aiohttp
import pytest
from aiohttp.http_exceptions import BadHttpMessage, TransferEncodingError

from filters.fetch.body import BodyFault
from filters.fetch.faults import Fault, Refusal, before_header, in_body, is_ours, of_redirect
from filters.fetch.guard import BlockedAddress
from filters.fetch.optout import Receipt
from filters.fetch.url import UrlFault


def test_a_complaint_of_the_parser_is_one_whether_it_comes_bare_or_wrapped():
    """A connection that ends in the same moment wraps it: endless trailers were `incomplete_body` on a busy machine."""

    def wrapped(cause):
        error = aiohttp.ClientPayloadError("Response payload is not completed")
        error.__cause__ = cause
        return in_body(error).reason

    assert (
        in_body(BadHttpMessage("Too many headers")).reason
        == wrapped(BadHttpMessage("Too many headers"))
        == "bad_response"
    )
    assert wrapped(TransferEncodingError("not enough data")) == wrapped(None) == "incomplete_body"


def key() -> aiohttp.client_reqrep.ConnectionKey:
    return aiohttp.client_reqrep.ConnectionKey("a.example", 80, False, True, None, None, None)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aiohttp.ClientConnectorDNSError(key(), OSError(socket.EAI_NONAME, "not known")), "dns"),
        (aiohttp.ClientConnectorError(key(), OSError(errno.ECONNREFUSED, "refused")), "connection"),
        (aiohttp.ClientConnectorCertificateError(key(), ssl.CertificateError("expired")), "tls"),
        (ssl.SSLError("wrong version number"), "tls"),
        (aiohttp.InvalidURL("http://"), "bad_url"),
        (aiohttp.ServerDisconnectedError(), "connection"),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), "connection"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "connection"),
        (BadHttpMessage("no HTTP"), "bad_response"),
        (ValueError("whatever a parser raises"), "bad_response"),
    ],
)
def test_what_happens_before_the_header(error: Exception, reason: str) -> None:
    fault = before_header(error)
    assert fault.reason == reason
    assert fault.detail.startswith(f"{type(error).__name__}: ")


def test_an_answer_that_breaks_off_within_its_header_is_no_lost_connection() -> None:
    """aiohttp then says the message that it has so far; without one the server said nothing at all."""
    message = aiohttp.http_parser.RawResponseMessage(
        aiohttp.HttpVersion11,
        200,
        "OK",
        None,
        (),
        False,
        None,
        False,
        False,  # type: ignore[arg-type]
    )
    assert before_header(aiohttp.ServerDisconnectedError(message)).reason == "bad_response"


def test_the_guard_s_refusal_counts_wherever_it_stands_in_the_chain() -> None:
    refusal = BlockedAddress("10.0.0.1", "private")
    wrapped = caused(aiohttp.ClientOSError(1, "x"), caused(OSError("y"), refusal))
    assert before_header(wrapped).reason == before_header(refusal).reason == "blocked_address"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BodyFault("too_large", "3 bytes"), "too_large"),
        (aiohttp.ClientPayloadError("cut"), "incomplete_body"),
        (ConnectionResetError("reset"), "incomplete_body"),
        (TransferEncodingError("bad chunk"), "bad_response"),
        (ValueError("whatever a parser raises"), "bad_response"),
    ],
)
def test_what_happens_within_the_body(error: Exception, reason: str) -> None:
    assert in_body(error).reason == reason


def test_whether_the_whole_response_was_http() -> None:
    """Where it was not, the status in front of it depends on packets, so that the ledger leaves it out."""
    assert in_body(aiohttp.ClientPayloadError("cut")).is_http
    assert in_body(BodyFault("too_large", "x")).is_http
    assert not in_body(BadHttpMessage("Too many headers")).is_http
    assert not in_body(caused(aiohttp.ClientPayloadError("cut"), BadHttpMessage("Too many headers"))).is_http


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS])
def test_a_full_machine_is_no_fault_of_the_url(number: int) -> None:
    assert is_ours(OSError(number, "x"))
    assert is_ours(caused(aiohttp.ClientPayloadError("cut"), OSError(number, "x")))


def test_the_web_s_errors_are_not_ours() -> None:
    assert not is_ours(OSError(errno.ECONNREFUSED, "refused"))
    assert not is_ours(ValueError("no error of the system"))


def test_a_refusal_says_the_rule_it_obeys() -> None:
    refusal = Refusal("robots", Receipt("robots.txt", "Disallow: /"), passing=True)
    assert (refusal.reason, refusal.detail, refusal.passing, refusal.is_http) == (
        "robots",
        "robots.txt: Disallow: /",
        True,
        True,
    )
    assert str(Fault("dns", "no address")) == "dns: no address"


def test_a_location_that_leads_nowhere_is_the_server_s_mistake() -> None:
    assert of_redirect(UrlFault("bad_url", "x")).reason == "bad_response"
    assert of_redirect(UrlFault("blocked_scheme", "file:")).reason == "blocked_scheme"
