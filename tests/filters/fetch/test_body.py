"""filters/fetch/body.py: caps to the byte, and compressed bodies in pieces of any size."""

import gzip
import tempfile
import zlib

import pytest

from filters.fetch.body import IN_MEMORY, Body, BodyFault
from filters.fetch.digests import digests_of


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


def test_digests_are_of_the_file_not_of_what_was_sent() -> None:
    plain = b"a picture" * 1000
    for encoding, sent in (("", plain), ("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        body = Body(100_000, encoding)
        for at in range(0, len(sent), 100):
            body.feed(sent[at : at + 100])
        body.end()
        assert body.digests == digests_of(plain)
        assert body.take() == plain


@pytest.mark.parametrize("held", [False, True])
def test_a_held_body_never_reaches_a_disk(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *args, **options: made.append(1) or whole(*args, **options))
    body = Body(8 * IN_MEMORY, held=held)
    for _ in range(6):
        body.feed(bytes(IN_MEMORY // 2))
    body.end()
    assert len(body.take()) == 3 * IN_MEMORY
    assert len(made) == (0 if held else 1)
