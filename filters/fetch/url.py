"""Make a URL canonical as the WHATWG URL standard does: the one spelling under which it is judged and asked for.

`ada_url` parses and joins: the parser of browsers' standard in C++, about 5 µs for a URL with what is done here. Where
it says no, browsers say no.
"""

import re

from ada_url import URL, idna_to_unicode

MAX_LENGTH = 16_384
"""Characters; RFC 9110 asks servers to take 8,000 octets, and few take more."""
BLANKS = "".join(map(chr, range(0x21)))  # C0 controls and the space: taken off both ends
GAPS = str.maketrans("", "", "\t\n\r")  # taken out wherever they stand
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
NO_SCHEME = re.compile(r"[^/?#]*:\d+(?:[/?#]|$)")  # "host:80/x" has a port there, not a scheme
LABELS = re.compile(r"(?:[^.]{1,63}\.)*[^.]{1,63}")
CANONICAL = re.compile(r"(https?://)(?:[^/@]*@)?(\[[^\]]*\]|[^/:]*)(?::([0-9]+))?([^?#]*)(\?[^#]+)?")
"""What the parser returns: scheme, user and password, host, port, path, a query that is not empty, fragment."""
ESCAPE = re.compile("%([0-9A-Fa-f]{2})?")
MEANT = "/?#%&=+;$*\\"
"""What some servers, or rules of robots.txt, take otherwise where it is percent-encoded."""
PRINTABLE = frozenset(map(chr, range(0x21, 0x7F)))
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
    site, host, port, path, query = _parts(text)
    if not host.startswith("["):
        host = host.removesuffix(".")
        if len(host) > 253 or not LABELS.fullmatch(host) or ("xn--" in host and not _is_idna(host)):
            raise UrlFault("bad_url", f"{_show(text)}: {_show(host)} is not a host name")
    if port == "0":
        raise UrlFault("bad_url", f"{_show(text)}: port 0 is no port")
    return f"{site}{host}{port and f':{port}'}{path}{query}"


def _parts(text: str) -> tuple[str, ...]:
    """Return `http://` or `https://`, host, port, path and query of a URL, empty where it has none."""
    found = CANONICAL.match(_href(text))
    if not found:
        raise UrlFault("bad_url", f"{_show(text)} is no URL of a host")
    return found.groups("")


def _href(text: str, base: str | None = None) -> str:
    """Return a URL, which may be relative to `base`, as the URL standard writes it."""
    try:
        return URL(text, base).href
    except ValueError as error:
        raise UrlFault("bad_url", f"{_show(text)} is no URL by the URL standard") from error


def _is_idna(host: str) -> bool:
    """Tell whether all labels `xn--…` stand for others, as the standard wants and the parser does not ask: those that
    stand for none, it leaves as they are."""
    return not any(label.startswith("xn--") for label in idna_to_unicode(host).split("."))


def identity(text: str) -> str:
    """Return what two URLs share where they are one; of what is not asked for the text itself.

    They are one if servers and rules of robots.txt take them so: if their canonical URLs differ in nothing but which
    printable characters are percent-encoded, and in none of `MEANT`.
    """
    try:
        return decoded(normalise(text), MEANT, MEANT)
    except UrlFault:
        return text


def decoded(url: str, path_apart: str = "/?#%", query_apart: str = "#%&=+") -> str:
    """Return a canonical URL with one spelling for each octet: printable ASCII as it is, but what is to be kept apart
    from its own percent-encoding, the rest as `%XX` in capitals, and `%25` for a `%` before no digits.

    `path_apart`, `query_apart`: characters that mean something else where they are encoded. What it returns is for
    comparison; it may be no URL.
    """
    if "%" not in url:
        return url
    path, mark, query = url.partition("?")
    return f"{_decoded(path, path_apart)}{mark}{_decoded(query, query_apart)}"


def _decoded(text: str, apart: str) -> str:
    def octet(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%25"
        letter = chr(int(found[1], 16))
        return letter if letter in PRINTABLE and letter not in apart else found[0].upper()

    return ESCAPE.sub(octet, text)


def follow(base: str, location: str) -> str:
    """Return the canonical URL that a Location header leads to from `base`, a canonical URL.

    Raises UrlFault: blocked_scheme, or bad_url, which the client calls the server's fault.
    """
    return normalise(_href(_clean(location), base))


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
