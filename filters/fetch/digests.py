"""Say of the bytes of a picture, as they came, which file they are: MD5, SHA-1 and SHA-256, taken while they arrive."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Digests:
    """What published lists name a picture by, each in hex; None where nobody took it.

    `md5`, `sha1`, `source_sha256`: of the bytes received, a Content-Encoding undone. `pdq`: of the decoded picture
    (filters/images/pdq.py).
    """

    md5: str | None = None
    sha1: str | None = None
    source_sha256: str | None = None
    pdq: str | None = None


NONE = Digests()
"""The digests of a picture of which no bytes came."""


class Hasher:
    """Takes the digests of bytes as they come; hashlib lets other threads work meanwhile."""

    def __init__(self) -> None:
        self._hashes = [hashlib.md5(usedforsecurity=False), hashlib.sha1(usedforsecurity=False), hashlib.sha256()]

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        for one in self._hashes:
            one.update(data)

    def digests(self) -> Digests:
        """Return the digests of all bytes so far."""
        return Digests(*(one.hexdigest() for one in self._hashes))


def digests_of(data: bytes) -> Digests:
    """Return the digests of whole bytes."""
    hasher = Hasher()
    hasher.update(data)
    return hasher.digests()
