"""Bring URLs into the form in which lists, tombstones and questions compare them: that of the canonical URL, whatever
the spelling.

The form is the canonical URL of `filters.fetch.url` without its scheme and port 80 or 443, and with no printable ASCII
percent-encoded but what means something else then: `/ ? # %` in a path, `& = + # %` in a query. Lists and tombstones of
before hold another form, made of the URL as written: it is computed beside it, so that what they named stays named.
"""

import contextlib
import posixpath
import re
import string
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from filters.fetch.url import UrlFault, decoded, normalise

PLAIN = (
    r"^https?://(?:[a-z0-9_-]+\.)*[a-z][a-z0-9_-]*"
    r"(?:/(?:[A-Za-z0-9_~!$&()*+,;=:@-][A-Za-z0-9_~!$&()*+,;=:@.-]*)?)+"
    r"(?:\?[A-Za-z0-9_~!$&()*+,;=:@./?-]+)?$"
)
"""URLs whose forms are what stands behind `//`: nothing in them has another spelling. Most are; they are not parsed."""
ENCODED = "xn--"
"""What may stand in a host only where it is valid punycode: such URLs are parsed."""
UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
ODD = re.compile("[^!-$&-~]")
"""What makes a path worth a look: a `%`, or anything but printable ASCII."""
PARTS = re.compile(
    r"\s*https?://(?:[^/?#@\s]*@)?(?P<host>\[[^\]]*\]|[^/?#:\s]*)(?P<port>:[0-9]*)?(?P<rest>[^#]*)", re.I | re.A
)
BARE = r"(?:[0-9a-fA-F.]*:){2}[0-9a-fA-F:.]*"
"""An IPv6 address without its brackets."""
HOST = r"^(?P<host>\[[^\]]*\]|[^/:]*)"
PATH = r"(?:^|/)\.{0,2}(?:/|$)"
"""Where a path of a local picture can be written otherwise: an empty segment, a dot or two."""
SCHEME = r"^[A-Za-z][A-Za-z0-9+.-]*:"
Test = Callable[[pa.Array], pa.BooleanArray]


class Forms(NamedTuple):
    """A form of each value, and the one that lists and tombstones of before have of it: the same for nearly all."""

    now: pa.Array
    before: pa.Array

    def either(self, test: Test) -> pa.BooleanArray:
        """Tell of each value whether `test` says so of one of its forms; that of before is asked where it differs.
        Never null."""
        hit = pc.fill_null(test(self.now), False)
        if self.before is self.now:
            return hit
        other = pc.fill_null(pc.not_equal(self.now, self.before), False)
        more = pc.fill_null(test(self.before.filter(other)), False)
        return pc.replace_with_mask(hit, other, pc.or_(hit.filter(other), more))

    @property
    def each(self) -> tuple[pa.Array, ...]:
        """Return the forms to look at: both, or one where all are the same."""
        return (self.now,) if self.before is self.now else (self.now, self.before)

    @property
    def hosts(self) -> "Forms":
        """Return the hosts of forms of URLs, without a port."""
        made = [pc.struct_field(pc.extract_regex(forms, HOST), "host") for forms in self.each]
        return Forms(made[0], made[-1])


def url_forms(urls: pa.Array) -> Forms:
    """Return the forms of http(s) URLs, null for other values. A URL that cannot be asked for keeps its form of
    before."""
    urls = urls.combine_chunks() if isinstance(urls, pa.ChunkedArray) else urls
    plain = pc.and_not(pc.match_substring_regex(urls, PLAIN), pc.match_substring(urls, ENCODED))
    tail = pc.utf8_slice_codeunits(urls, 7)  # behind "http://"
    tail = pc.if_else(plain, pc.if_else(pc.starts_with(tail, "/"), pc.utf8_slice_codeunits(tail, 1), tail), None)
    odd = pc.fill_null(pc.invert(plain), False)
    if not pc.any(odd).as_py():
        return Forms(tail, tail)
    coded = urls.filter(odd).dictionary_encode()
    before = [_form_before(url) for url in coded.dictionary.to_pylist()]
    now = [_form(url) or old for url, old in zip(coded.dictionary.to_pylist(), before, strict=True)]
    made = [pa.array(forms, pa.string()).take(coded.indices) for forms in (now, before)]
    return Forms(*(pc.replace_with_mask(tail, odd, forms) for forms in made))


def normal_urls(urls: pa.Array) -> pa.Array:
    """Return http(s) URLs as they are compared, others null: http and https are one, and so are all spellings of one
    canonical URL."""
    return url_forms(urls).now


def host_forms(urls: pa.Array) -> Forms:
    """Return the forms of the hosts of http(s) URLs, null for other values."""
    return url_forms(urls).hosts


def hosts_of(urls: pa.Array) -> pa.Array:
    """Return the hosts of http(s) URLs as they are compared, others null."""
    return host_forms(urls).now


def named_hosts(names: pa.Array) -> Forms:
    """Return the forms of names of hosts, without a port; an IPv6 address needs no brackets. Null stays null."""
    bare = pc.match_substring_regex(names, f"^{BARE}$")
    names = pc.if_else(bare, pc.binary_join_element_wise("[", names, "]", ""), names)
    return host_forms(pc.binary_join_element_wise("http://", names, "/", ""))


def place_forms(urls: pa.Array) -> Forms:
    """Return the forms of URLs of the web, and of other values too: paths of pictures without needless dots and
    slashes, the rest as it stands. Null stays null."""
    return Forms(
        *(pc.coalesce(forms, other) for forms, other in zip(url_forms(urls), (_paths(urls), urls), strict=True))
    )


def _paths(urls: pa.Array) -> pa.Array:
    odd = pc.and_not(pc.match_substring_regex(urls, PATH), pc.match_substring_regex(urls, SCHEME))
    odd = pc.fill_null(pc.and_(odd, pc.not_equal(urls, "")), False)
    if not pc.any(odd).as_py():
        return urls
    made = [posixpath.normpath(path) for path in urls.filter(odd).to_pylist()]
    return pc.replace_with_mask(urls, odd, pa.array(made, pa.string()))


def _form(url: str) -> str | None:
    """Return the form of a URL that may be asked for."""
    try:
        canonical = normalise(url)
    except UrlFault:
        return None
    place, _, rest = canonical.partition("://")[2].partition("/")
    return f"{place.removesuffix(':80').removesuffix(':443')}/{decoded(rest)}"


def _form_before(url: str) -> str | None:
    """Return the form of before: of the URL as written, no dot segment resolved, its host by IDNA 2003."""
    found = PARTS.match(url)
    if not found:
        return None
    host, port, rest = found["host"].lower().rstrip("."), found["port"] or "", found["rest"].rstrip()
    if not host.isascii():
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode()
    port = "" if port in (":", ":80", ":443") else port
    return f"{host}{port}{_escaped(rest if rest.startswith('/') else f'/{rest}')}"


def _escaped(rest: str) -> str:
    """Return a path and query with `%` before upper-case digits, and only where a URL needs it."""
    return quote(re.sub("%[0-9a-fA-F]{2}", _escape, rest), safe=PRINTABLE) if ODD.search(rest) else rest


def _escape(found: re.Match[str]) -> str:
    letter = chr(int(found[0][1:], 16))
    return letter if letter in UNRESERVED else found[0].upper()
