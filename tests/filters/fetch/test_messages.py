"""What is asked of the fetcher and what it answers: values that cross threads and processes, and load no web client."""

import pickle
import subprocess
import sys

import pytest

from filters.fetch.messages import Answer, Download, Request
from filters.fetch.optout import Receipt
from filters.images.decode import Stored


def test_an_answer_has_a_body_or_a_reason() -> None:
    whole = Answer(b"u", None, b"body", 200, "http://a.test/")
    refused = Answer(b"u", "robots", None, None, "http://a.test/", receipt=Receipt("robots.txt", "Disallow: /"))
    assert (whole.reason, whole.receipt, whole.detail, whole.attempts) == (None, None, "", 1)
    assert (refused.body, refused.attempts) == (None, 1)
    assert (Download(b"u", "dns").stored, Download(b"u", "dns").tries) == (None, 1)


def test_they_are_values_that_do_not_change() -> None:
    assert Request(b"u", "http://a.test/") == Request(b"u", "http://a.test/")
    assert len({Request(b"u", "x"), Request(b"u", "x"), Request(b"v", "x")}) == 2
    with pytest.raises(AttributeError):
        Request(b"u", "x").url = "y"  # type: ignore[misc]


def test_they_come_through_a_pipe_whole() -> None:
    receipt = Receipt("X-Robots-Tag", "noai")
    for message in (
        Request(b"u", "http://a.test/ü"),
        Answer(b"u", "opted_out", None, 200, "http://a.test/", "x", receipt, 2),
        Download(b"u", None, 200, stored=Stored(b"jpeg", 1, 2, 3, 4), tries=3),
    ):
        assert pickle.loads(pickle.dumps(message)) == message


def test_they_load_neither_a_web_client_nor_a_decoder() -> None:
    """The parent of the workers reads what they say; it has no use for either."""
    code = "import sys, filters.fetch.messages; print({'aiohttp', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
