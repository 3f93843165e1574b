"""Digests of what was received: the standards' own test vectors, in one piece and in many."""

from filters.fetch.digests import Digests, Hasher, digests_of

ABC = Digests(
    "900150983cd24fb0d6963f7d28e17f72",  # RFC 1321, A.5
    "a9993e364706816aba3e25717850c26c9cd0d89d",  # FIPS 180, SHA-1 of "abc"
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180, SHA-256 of "abc"
)


def test_the_digests_of_abc() -> None:
    assert digests_of(b"abc") == ABC
    assert digests_of(b"abc").pdq is None  # of pixels, not of bytes


def test_pieces_count_as_one() -> None:
    hasher = Hasher()
    for piece in (b"a", b"", b"bc"):
        hasher.update(piece)
    assert hasher.digests() == ABC
    assert hasher.digests() == ABC
