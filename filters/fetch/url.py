"""Turn a URL as written in a table or a Location header into one that may be asked for, or say why not."""

import re
import socket
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin, urlsplit

MAX_LENGTH = 16_384
"""Characters; RFC 9110 asks servers to take 8,000 octets, and few take more."""
KEPT = "!$%&'()*+,/:;=?@[]~"  # '%' too: what is quoted already stays as it is
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
NO_SCHEME = re.compile(r"[^/?#]*:\d+(?:[/?#]|$)")  # "host:80/x" has a port there, not a scheme
HOST = re.compile(r"[a-z0-9._~*-]+")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


class UrlFault(Exception):
    """A URL that is not asked for. `reason`: bad_url or blocked_scheme."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def _show(text: str) -> str:
    return repr(text) if len(text) <= 120 else repr(text[:120]) + "…"


def normalise(text: str) -> str:
    """Return an absolute http(s) URL in ASCII: host as IDNA or canonical address, blanks and non-ASCII quoted.

    A user name, password and fragment are dropped: secrets in a table are not ours to send. Odd spellings of IPv4
    (decimal, octal, hex, short) become dotted quads, as browsers read them.
    Raises UrlFault: blocked_scheme for a scheme other than http and https, bad_url for what is no URL.
    """
    text = text.strip()
    scheme = SCHEME.match(text)
    if scheme and scheme[1].lower() not in ("http", "https") and not NO_SCHEME.match(text):
        raise UrlFault("blocked_scheme", f"{scheme[1].lower()[:40]}: is not fetched, only http and https")
    if not scheme or len(text) > MAX_LENGTH:
        raise UrlFault(
            "bad_url", f"{_show(text)} of {len(text)} characters; wanted http(s)://host/… of at most {MAX_LENGTH}"
        )
    try:
        parts = urlsplit(text)
        host, port = _host(parts.hostname or ""), parts.port
        path, query = _quote(parts.path), _quote(parts.query)
        if port == 0:
            raise ValueError("port 0 is no port")
    except ValueError as error:
        raise UrlFault("bad_url", f"{_show(text)}: {error}") from error
    place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return f"{parts.scheme}://{place}{path or '/'}{f'?{query}' if query else ''}"


def follow(base: str, location: str) -> str:
    """Return the URL that a Location header leads to from `base`.

    Raises UrlFault: blocked_scheme, or bad_url, which the client calls the server's fault.
    """
    try:
        joined = urljoin(base, location.strip())
    except ValueError as error:
        raise UrlFault("bad_url", f"Location {_show(location)}: {error}") from error
    return normalise(joined)


def _quote(text: str) -> str:
    """Quote what a URL may not hold; header bytes that were not UTF-8 are quoted as they came."""
    return quote(text.encode("utf-8", "surrogateescape"), safe=KEPT)


def _host(host: str) -> str:
    """Return a host in ASCII, without a zone. Raises ValueError where it can be no host."""
    if ":" in host:
        return IPv6Address(host.partition("%")[0]).compressed
    name = (host if host.isascii() else _idna(host)).removesuffix(".")
    if not HOST.fullmatch(name) or len(name) > 253 or any(not 1 <= len(label) <= 63 for label in name.split(".")):
        raise ValueError(f"{_show(host)} is not a host name")
    return _dotted_quad(name) if NUMBER.fullmatch(name.rpartition(".")[2]) else name


def _idna(host: str) -> str:
    import idna  # comes with aiohttp

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:  # emoji and the like: the older standard knew them, and such hosts exist
        return host.encode("idna").decode("ascii").lower()


def _dotted_quad(name: str) -> str:
    """Return an IPv4 address in its usual spelling; a name that ends in a number is one, or wrong (as in the URL
    standard)."""
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError as error:
        raise ValueError(f"{_show(name)} ends in a number but is no IPv4 address") from error
