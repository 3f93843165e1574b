"""filters/fetch/body.py: caps to the byte, and compressed bodies in pieces of any size."""

import gzip
import zlib

import pytest

from filters.fetch.body import Body, BodyFault


def test_bytes_exactly_at_the_cap_are_taken() -> None:
    body = Body(10)
    body.feed(b"12345")
    body.feed(b"67890")
    body.end()
    assert body.take() == b"1234567890"
    body = Body(10)
    body.feed(b"1234567890")
    with pytest.raises(BodyFault, match="too_large"):
        body.feed(b"1")
    body.close()


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_gzip_members_and_what_follows_them(step: int) -> None:
    sent = gzip.compress(b"one ") + gzip.compress(b"two" * 30_000) + b"\0\0padding"
    body = Body(200_000, "x-GZIP")
    for at in range(0, len(sent), step):
        body.feed(sent[at : at + step])
    body.end()
    assert body.take() == b"one " + b"two" * 30_000


def test_deflate_in_small_steps_loses_nothing() -> None:
    plain = bytes(300_000)
    for coded in (zlib.compress(plain), zlib.compress(plain)[2:-4]):
        body = Body(300_000, "deflate")
        for at in range(0, len(coded), 7):
            body.feed(coded[at : at + 7])
        body.end()
        assert body.take() == plain
