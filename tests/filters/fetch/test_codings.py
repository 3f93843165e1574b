"""filters/fetch/codings.py: codings undone in pieces of any size, each under the cap."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from filters.fetch.codings import STEP, ZSTD_PIECE, CodingFault, Codings

PLAIN = b"one two " * 40_000
SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
PICTURE = b"\xff\xd8\xff and so on"


def undone(header: str, data: bytes, step: int, most: int = 1_000_000) -> bytes:
    codings = Codings(header, most)
    pieces = [piece for at in range(0, len(data), step) for piece in codings.feed(data[at : at + step])]
    return b"".join((*pieces, *codings.end()))


@pytest.mark.parametrize("step", [1, 3, 100_000])
@pytest.mark.parametrize(
    ("header", "sent"),
    [
        ("gzip", gzip.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)[2:-4]),
        ("BR", brotli.compress(PLAIN)),
        ("zstd", zstandard.compress(PLAIN)),
        ("zstd", zstandard.compress(PLAIN[:900]) + zstandard.compress(PLAIN[900:])),
        ("zstd", SKIPPABLE + zstandard.compress(PLAIN)),
        ("zstd", zstandard.compress(PLAIN) + SKIPPABLE),
        ("zstd", zstandard.compress(PLAIN) + b"\x28\xb5\x2f rubbish"),
        ("zstd", zstandard.compress(PLAIN) + b"\x28\xb5"),
        ("gzip", gzip.compress(PLAIN[:900]) + gzip.compress(PLAIN[900:])),
        ("gzip", gzip.compress(PLAIN) + b"\x1f rubbish"),
        ("gzip", gzip.compress(PLAIN) + b"\x1f\x8b\x07 rubbish"),
        ("gzip", gzip.compress(PLAIN) + b"\x1f\x8b\x08\xff"),
        ("gzip", gzip.compress(PLAIN) + b"\x1f"),
        ("gzip", gzip.compress(PLAIN) + bytes(99)),
        ("zstd, gzip , br", brotli.compress(gzip.compress(zstandard.compress(PLAIN)))),
        ("identity, gzip, utf-8", gzip.compress(PLAIN)),
    ],
)
def test_pieces_of_any_size(header: str, sent: bytes, step: int) -> None:
    assert undone(header, sent, step) == PLAIN


@pytest.mark.parametrize("header", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_picture_that_was_never_coded_is_passed_through(header: str) -> None:
    assert undone(header, PICTURE, 1) == PICTURE == undone(header, PICTURE, 100)


def test_the_outer_coding_may_be_the_only_one() -> None:
    assert undone("gzip, gzip", gzip.compress(PICTURE), 5) == PICTURE


@pytest.mark.parametrize("header", ["", "identity", "none", "utf-8", "aws-chunked", "identity, binary"])
def test_what_is_no_coding(header: str) -> None:
    assert not Codings(header, 1)


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ("gzip", gzip.compress(PLAIN)[:-9], "incomplete_body"),
        ("gzip", b"\x1f\x8b", "incomplete_body"),
        ("br", brotli.compress(PLAIN)[:-1], "incomplete_body"),
        ("zstd", zstandard.compress(PLAIN)[:-1], "incomplete_body"),
        ("zstd", (zstandard.compress(PLAIN) * 2)[:-1], "incomplete_body"),
        ("gzip", (gzip.compress(PLAIN) * 2)[:-9], "incomplete_body"),
        ("zstd", zstandard.compress(bytes(600_000)) * 2, "too_large"),
        ("deflate", b"\x78\x9c" + bytes([0xFF] * 50), "bad_response"),
        ("zstd", b"rubbish", "bad_response"),
        ("zstd", b"\x28\xb5\x2f\xfd\x00\xa0" + bytes(40), "bad_response"),  # a window of 1 GiB
        ("gzip", gzip.compress(bytes(1_000_001)), "too_large"),
        ("br", brotli.compress(bytes(1_000_001)), "too_large"),
        ("zstd", zstandard.compress(bytes(1_000_001)), "too_large"),
        ("gzip, gzip", gzip.compress(gzip.compress(PLAIN) + bytes(2_000_000)), "too_large"),
    ],
)
def test_reasons(header: str, data: bytes, reason: str) -> None:
    with pytest.raises(CodingFault) as met:
        undone(header, data, 1000)
    assert met.value.reason == reason


@pytest.mark.parametrize("header", ["compress", "gzip, dcb", "gzip, gzip, gzip, br"])
def test_codings_that_are_not_undone(header: str) -> None:
    with pytest.raises(CodingFault, match="bad_response"):
        Codings(header, 1)


@pytest.mark.parametrize(
    ("header", "pack", "most"),
    [
        ("br", lambda data: brotli.compress(data, quality=2), 2 * STEP),
        ("gzip", gzip.compress, STEP),
        ("zstd", zstandard.compress, 131_072 * (ZSTD_PIECE // 4 + 1)),
    ],
    ids=["br", "gzip", "zstd"],
)
def test_a_bomb_makes_small_pieces(header: str, pack: Callable[[bytes], bytes], most: int) -> None:
    """100 MB of zeros: the first 20 MB come in pieces of at most `most` bytes, and no more is held."""
    bomb = pack(bytes(100_000_000))
    tracemalloc.start()
    largest = made = 0
    for piece in Codings(header, 1 << 40).feed(bomb):
        largest, made = max(largest, len(piece)), made + len(piece)
        if made > 20_000_000:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest <= most
    assert made > 20_000_000
    assert peak < 3 * most + (4 << 20)
