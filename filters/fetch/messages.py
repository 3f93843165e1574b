"""What is asked of the fetcher and what it answers."""

from dataclasses import dataclass

from filters.fetch.digests import NONE, Digests
from filters.fetch.optout import Receipt
from filters.images.decode import Stored


@dataclass(frozen=True)
class Request:
    """One URL to fetch, as written in the table, under the row's uid."""

    uid: bytes
    url: str


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    `reason` is None where `body` is there, else one of: bad_url blocked_scheme blocked_address dns connection tls
    timeout bad_response http_NNN too_many_redirects too_large incomplete_body empty_body robots opted_out
    host_down.
    `status`: the last HTTP status seen, if any. `final_url`: the last URL asked for. `detail`: for logs only.
    `receipt`: for `robots` and `opted_out`. `attempts`: how often the URL was tried, 0 where it was never asked for.
    `digests`: of the body's bytes.
    """

    uid: bytes
    reason: str | None
    body: bytes | None
    status: int | None
    final_url: str
    detail: str = ""
    receipt: Receipt | None = None
    attempts: int = 1
    digests: Digests = NONE


@dataclass(frozen=True)
class Download:
    """What became of a request: a picture as it is stored, or a reason. `tries`: how often it was asked for, for
    logs. `digests`: of what came, a picture or not."""

    uid: bytes
    reason: str | None
    status: int | None = None
    detail: str = ""
    stored: Stored | None = None
    receipt: Receipt | None = None
    tries: int = 1
    digests: Digests = NONE
