"""Name the site that a host belongs to: what one owner has registered, by the Public Suffix List."""

import ipaddress
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


@lru_cache(maxsize=1 << 16)
def site_of(host: str) -> str:
    """Return the registrable domain of a host in ASCII, in lower case: `cdn.example` of `img1.cdn.example`.

    Both sections of the list count, as for browsers' cookies: `one.github.io` and `two.github.io` are two sites, since
    they are two owners'. An address, a name of one label and a public suffix stand for themselves. A top-level domain
    that the list does not know is a public suffix.
    """
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name.strip("[]")).compressed
    except ValueError:
        return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> "PublicSuffixList":
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(accept_unknown=True, only_icann=False)
