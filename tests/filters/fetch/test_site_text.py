"""Site files are read whatever they were packed in and written in, within a bound."""

import gzip
import random
import zlib

import brotli
import pytest
import zstandard

from filters.fetch.codings import CodingFault
from filters.fetch.optout import TdmRules
from filters.fetch.robots import RobotsRules
from filters.fetch.site_text import is_text, text_of, unpacked

ROBOTS = b"User-agent: *\nDisallow: /x\n"
MOST = 1 << 16


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKED = {
    "gzip": gzip.compress(ROBOTS),
    "gzip-twice": gzip.compress(gzip.compress(ROBOTS)),
    "zlib": zlib.compress(ROBOTS),
    "deflate": raw_deflate(ROBOTS * 20),
    "br": brotli.compress(ROBOTS),
    "br-long": brotli.compress(ROBOTS * 500),
    "zstd": zstd(ROBOTS),
    "plain": ROBOTS,
    "gzip-utf-16": gzip.compress(ROBOTS.decode().encode("utf-16")),
    "br-latin-1": brotli.compress("# café\n".encode() + ROBOTS),
    "gzip-with-rubbish": gzip.compress(ROBOTS) + b"\0\0\0\0",
}


def refusal(file: bytes) -> str | None:
    return RobotsRules.of(file, frozenset({"tessera"})).refusal("/x")


@pytest.mark.parametrize("header", ["", "identity", "utf-8", "gzip", "br", "deflate", "gzip, br"])
@pytest.mark.parametrize("kind", PACKED)
def test_rules_are_read_whatever_coding_a_header_names(kind: str, header: str) -> None:
    assert refusal(unpacked(PACKED[kind], header, MOST)) == "Disallow: /x"


@pytest.mark.parametrize("header", ["br", "gzip, br", "gzip", ""])
def test_gzip_files_of_every_second_are_read_whatever_coding_a_header_names(header: str) -> None:
    """The time in a gzip file's head decides whether brotli calls it an error or a stream that is cut."""
    for second in range(1_700_000_000, 1_700_000_000 + 256 * 97, 97):
        file = gzip.compress(ROBOTS, mtime=second)
        assert refusal(unpacked(file, header, MOST)) == "Disallow: /x"
        with pytest.raises(CodingFault, match="end mark"):
            unpacked(file[:-9], header, MOST)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_rules_and_reservations_are_read_in_every_encoding_of_unicode(encoding: str) -> None:
    assert refusal(unpacked(ROBOTS.decode().encode(encoding), "", MOST)) == "Disallow: /x"
    tdm = '[{"location": "/x", "tdm-reservation": 1}]'.encode(encoding)
    assert TdmRules.of(unpacked(tdm, "", MOST)).refusal("/x") == "location: /x, tdm-reservation: 1"


@pytest.mark.parametrize(
    "file",
    [
        b"\0" + ROBOTS,
        b"User-agent: *\n\xef\xbb\xbfDisallow: /x",  # files that were joined
        b"\xc3\xaf\xc2\xbb\xc2\xbfUser-agent: *\nDisallow: /x",  # a mark that was taken for Windows-1252
        ROBOTS.replace(b"\n", b"\0\n"),
        ROBOTS.replace(b"D", b"\xe2\x80\x8bD"),
        ROBOTS + bytes(4096),
        b"\xe4\xf6\xfc # not UTF-8\r" + ROBOTS,
    ],
)
def test_marks_and_nuls_hide_no_rule(file: bytes) -> None:
    assert refusal(unpacked(file, "", MOST)) == "Disallow: /x"


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><head><title>404: not found</title><style>a{allow: none}</style></head></html>",
        b'<html><script>{"User-agent": "*", "Disallow": "/x"}</script><p>Disallow: /x</p></html>',
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
        random.Random(1).randbytes(5000),
        b"",
    ],
)
def test_a_page_or_a_picture_in_place_of_robots_txt_forbids_nothing(page: bytes) -> None:
    rules = RobotsRules.of(unpacked(page, "", MOST), frozenset({"tessera"}))
    assert (rules.refusal("/x"), rules.statements) == (None, ())


def test_a_bomb_is_unpacked_to_the_bound_and_no_further() -> None:
    for packed, header in ((gzip.compress(ROBOTS + bytes(64 << 20)), ""), (zstd(ROBOTS + bytes(64 << 20)), "zstd")):
        file = unpacked(packed, header, MOST)
        assert len(file) == MOST + 1
        assert refusal(file) == "Disallow: /x"


def test_a_stream_that_ends_early_is_no_file_but_one_cut_at_the_bound_is() -> None:
    packed = gzip.compress(ROBOTS + random.Random(2).randbytes(3 * MOST))
    for header in ("", "gzip"):
        with pytest.raises(CodingFault, match="incomplete_body"):
            unpacked(packed[:MOST], header, MOST)
        assert refusal(unpacked(packed[: MOST + 1], header, MOST)) == "Disallow: /x"


def test_a_coding_that_nothing_undoes_is_a_fault_unless_the_file_is_plain() -> None:
    assert unpacked(ROBOTS, "compress", MOST) == ROBOTS
    with pytest.raises(CodingFault, match="bad_response"):
        unpacked(b"\x1f\x9d\x90" + bytes(range(1, 200)), "compress", MOST)


def test_what_is_text() -> None:
    assert all(map(is_text, (ROBOTS, b"", ROBOTS.decode().encode("utf-16"), "ä".encode() * 5000)))
    assert not any(map(is_text, (b"\x0b\x0c\x80" + ROBOTS + b"\3", gzip.compress(ROBOTS), b"caf\xe9")))
    assert text_of(b"\xff\xfea\0") == "a"
