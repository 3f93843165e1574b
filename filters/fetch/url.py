"""Make a URL canonical as the WHATWG URL standard does: the one spelling under which it is judged and asked for.

`can_ada` parses: the parser of browsers' standard in C++, about 1 µs for a URL. Where it says no, browsers say no.
"""

import re

import can_ada

MAX_LENGTH = 16_384
"""Characters; RFC 9110 asks servers to take 8,000 octets, and few take more."""
BLANKS = "".join(map(chr, range(0x21)))  # C0 controls and the space: taken off both ends
GAPS = str.maketrans("", "", "\t\n\r")  # taken out wherever they stand
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
NO_SCHEME = re.compile(r"[^/?#]*:\d+(?:[/?#]|$)")  # "host:80/x" has a port there, not a scheme
LABELS = re.compile(r"(?:[^.]{1,63}\.)*[^.]{1,63}")
WEB = ("http", "https")
STRAY = re.compile("[\ud800-\udfff]")


class UrlFault(Exception):
    """A URL that is not asked for. `reason`: bad_url or blocked_scheme."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def _show(text: str) -> str:
    return repr(text) if len(text) <= 120 else repr(text[:120]) + "…"


def normalise(text: str) -> str:
    """Return the canonical URL of an http(s) URL as written, in ASCII: what WHATWG's URL standard makes of it.

    Blanks around it and tabs and line ends within are nothing, a backslash is a slash, dot segments (as `%2e` too) are
    resolved, the host is decoded, in lower case, as IDNA or as an address in its usual spelling, the scheme's own port
    goes. What is left out beyond the standard changes nothing at the server, or is not ours to send: user, password,
    fragment, an empty query, the dot of the root. `normalise` of what it returns is the same text.
    Raises UrlFault: blocked_scheme for a scheme other than http and https, bad_url for what is no URL, or names a host
    that DNS cannot hold.
    """
    text = _clean(text)
    scheme = SCHEME.match(text)
    if scheme and scheme[1].lower() not in WEB and not NO_SCHEME.match(text):
        raise UrlFault("blocked_scheme", f"{scheme[1].lower()[:40]}: is not fetched, only http and https")
    if not scheme or scheme[1].lower() not in WEB or len(text) > MAX_LENGTH:
        raise UrlFault(
            "bad_url", f"{_show(text)} of {len(text)} characters; wanted http(s)://host/… of at most {MAX_LENGTH}"
        )
    try:
        url = can_ada.parse(text)
    except ValueError as error:
        raise UrlFault("bad_url", f"{_show(text)} is no URL by the URL standard") from error
    host, port = url.hostname, url.port
    if not host.startswith("["):
        host = host.removesuffix(".")
        if len(host) > 253 or not LABELS.fullmatch(host):
            raise UrlFault("bad_url", f"{_show(text)}: {_show(host)} is not a host name")
    if port == "0":
        raise UrlFault("bad_url", f"{_show(text)}: port 0 is no port")
    return f"{url.protocol}//{host}{port and f':{port}'}{url.pathname}{url.search}"


def identity(text: str) -> str:
    """Return what two URLs share where they are one: the canonical URL; of what is not asked for the text itself."""
    try:
        return normalise(text)
    except UrlFault:
        return text


def follow(base: str, location: str) -> str:
    """Return the canonical URL that a Location header leads to from `base`, a canonical URL.

    Raises UrlFault: blocked_scheme, or bad_url, which the client calls the server's fault.
    """
    return normalise(_joined(base, _clean(location)))


def _clean(text: str) -> str:
    """Take out what is no part of a URL; header bytes that were not UTF-8 are quoted as they came."""
    text = text.strip(BLANKS)
    if text.isascii() and text.isprintable():
        return text
    return STRAY.sub(_octet, text.translate(GAPS))


def _octet(found: re.Match[str]) -> str:
    """Return a byte that `surrogateescape` stands for, quoted; any other half of a pair is no character."""
    code = ord(found[0])
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def _joined(base: str, location: str) -> str:
    """Return an absolute URL for one that may be relative to `base`: can_ada knows no base."""
    web, _, rest = base.partition("://")
    scheme = SCHEME.match(location)
    if scheme and not (scheme[1].lower() == web and not location.startswith("//", scheme.end())):
        return location
    place, mark, query = (location[scheme.end() :] if scheme else location).partition("#")[0].partition("?")
    place = place.replace("\\", "/")
    site, _, path = rest.partition("?")[0].partition("/")
    if place.startswith("//"):
        return f"{web}:{place}{mark}{query}"
    if not place:
        return f"{web}://{site}/{path}?{query}" if mark else base
    folder = "" if place.startswith("/") else f"/{path[: path.rfind('/') + 1]}"
    return f"{web}://{site}{folder}{place}{mark}{query}"
