"""Tell requests of this server's own page and of tools from those that another site's page sends.

A page of a stranger reaches a server on 127.0.0.1 in two ways: it has its own name resolve to that address (then the
Host header says the name), or it sends forms and scripts from its own origin (then the Origin header says that).
"""

import ipaddress
import re
from collections.abc import Collection

from pipeline.serving.limits import Refused

HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load: its own files, pictures that an event carries, and nothing else."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def check_host(host: str | None, names: Collection[str]) -> None:
    """Refuse (403) a Host header that is neither an address, nor localhost, nor one of `names`."""
    match = HOST.fullmatch(host or "")
    name = (match["six"] or match["name"]).lower().rstrip(".") if match else ""
    if name == "localhost" or name in names or _is_address(name):
        return
    raise Refused(403, f"this server is not called {(host or '')[:80]!r}; --name adds a name that it answers to")


def check_origin(origin: str | None, host: str | None) -> None:
    """Refuse (403) a request that changes something and that a page of another origin sent; tools send none."""
    if origin is not None and origin.partition("://")[2].lower() != (host or "").lower():
        raise Refused(403, f"a page of {origin[:80]!r} may not ask this server")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
