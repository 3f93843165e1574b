"""Ask a hostile server for URLs through the whole fetcher."""

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Answer, Request
from tests.support.hostile_server import HostileServer

SILENT = {"robots": False, "opt_outs": []}
"""Sites are not asked for their rules, so that every request is a test's own."""


def config(server: HostileServer, **settings: object) -> FetchConfig:
    """Return settings under which 127.0.0.2 may be dialled and no host is spared."""
    known = {
        "connect_to": server.connect_to,
        "allow_addresses": ["127.0.0.2/32"],
        "deadline_s": 60,
        "max_bytes": 2_000_000,
    }
    known |= {"host_rate": 10_000, "host_connections": 64, "breaker_faults": 1000}
    return FetchConfig.model_validate({**known, **settings})


def fetch(server: HostileServer, *urls: str, **settings: object) -> list[Answer]:
    """Return the answers in the order of the URLs; a path alone is one of the server's."""
    full = [server.url(url) if url.startswith("/") else url for url in urls]
    requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(full)]
    answers = sorted(fetch_all(requests, config(server, **settings)), key=lambda answer: answer.uid)
    assert [answer.uid for answer in answers] == [request.uid for request in requests]
    assert all((answer.reason is None) == (answer.body is not None) for answer in answers)
    return answers
