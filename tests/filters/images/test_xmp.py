"""XMP packets are found in every format and place; damage, bombs and floods cost little and hide nothing."""

import struct
import time
import zlib

import pytest

from filters.images import xmp
from filters.images.xmp import LEAST, MAX_BYTES, MAX_PACKET, packets
from tests.support.refusing_files import (
    files_with,
    is_picture,
    jpeg_in_pieces,
    jpeg_with,
    packet,
    png_with,
    refusing,
    standard,
    tiff,
)

XMP = refusing()
FILES = files_with(XMP)


@pytest.mark.parametrize("place", FILES)
def test_a_packet_is_found_where_each_format_keeps_it(place: str) -> None:
    assert is_picture(FILES[place])
    found = list(packets(FILES[place]))
    assert XMP in found or any(one.rstrip() == XMP for one in found)


@pytest.mark.parametrize("place", files_with(packet()))
def test_a_packet_that_says_nothing_is_a_packet(place: str) -> None:
    assert all(b"DataMining" not in one for one in packets(files_with(packet())[place]))


def test_pieces_are_put_together_by_their_offsets_and_broken_ones_are_passed_over() -> None:
    long = refusing() + b" " * 70_000
    assert long in list(packets(jpeg_in_pieces(long, 60_000)))
    short = jpeg_with(b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32)
    assert list(packets(short)) == []


def test_utf_16_is_found_by_its_place() -> None:
    wide = XMP.decode().encode("utf-16")
    assert list(packets(jpeg_with(standard(wide)))) == [wide, XMP]  # by its place, and in plain sight
    assert wide in list(packets(tiff(wide)))


def test_other_prefixes_are_found_by_their_place_and_a_bare_rdf_by_its_mark() -> None:
    other = XMP.replace(b"x:xmpmeta", b"a:xmpmeta").replace(b"xmlns:x", b"xmlns:a")
    assert next(packets(jpeg_with(standard(other)))) == other
    start, end = XMP.index(b"<rdf:RDF"), XMP.index(b"</x:")
    assert list(packets(b"anything" + XMP[start:end] + b"behind")) == [XMP[start:end]]


@pytest.mark.parametrize("prefix", ["", "a:", "xmp-meta:"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("root", ["xmpmeta", "RDF"])
def test_a_packet_in_plain_sight_is_found_whatever_its_prefix_and_width(prefix: str, encoding: str, root: str) -> None:
    text = f"<{prefix}{root} a='b'>caf\u00e9</{prefix}{root}>"
    data = b"\xff\xd8\xff\xd9\0" + text.encode(encoding) + "<b/>".encode(encoding)
    assert list(packets(data)) == [text.encode("utf-8" if encoding == "utf-8" else "latin-1")]
    assert list(packets(text.replace("RDF", "RDFs").replace("meta", "metas").encode(encoding))) == []


@pytest.mark.parametrize("name", [b"xmp", b"APP1", b"exif"])
@pytest.mark.parametrize("place", ["bare", "segment", "exif tag"])
def test_a_raw_profile_of_png_is_read_whatever_it_is_called(name: bytes, place: str) -> None:
    body = {"bare": XMP, "segment": standard(XMP), "exif tag": b"Exif\0\0" + tiff(XMP)}[place]
    text = b"\n%s\n%8d\n" % (name, len(body)) + body.hex().encode()
    found = list(packets(png_with(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))))
    assert XMP in found
    assert list(packets(png_with(b"zTXt", b"Raw profile type icc\0\0" + zlib.compress(text)))) == []


def test_a_damaged_container_hides_no_packet() -> None:
    cut = FILES["jpeg"].replace(struct.pack(">H", len(standard(XMP)) + 2), b"\xff\xff", 1)
    assert XMP in list(packets(cut))
    assert XMP in list(packets(b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffiTXt" + XMP))
    assert XMP in list(packets(b"RIFF\0\0\0\0WEBPjunk\xff\xff\xff\xff" + XMP))
    assert XMP in list(packets(b"II*\0\xff\xff\xff\x7f" + XMP))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"II*\0"]
)
def test_nothing_is_found_in_nothing(data: bytes) -> None:
    assert list(packets(data)) == []


def test_a_stream_that_breaks_off_yields_what_came_before() -> None:
    packed = zlib.compress(XMP + b"x" * 100_000, 0)
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + packed[:90_000] + b"\0" * 500
    found = list(packets(png_with(b"iTXt", body)))
    assert found[0].startswith(XMP)


def test_bombs_and_floods_are_bounded() -> None:
    started = time.process_time()
    bomb = png_with(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(100 << 20)))
    assert [len(one) for one in packets(bomb)] == [MAX_PACKET]
    assert len(list(packets(b"<x:xmpmeta" * 1_000_000))) <= MAX_BYTES // MAX_PACKET
    assert len(list(packets(b"<x:xmpmeta></x:xmpmeta>" * 100_000))) == MAX_BYTES // LEAST + 1
    assert len(list(packets(b"<rdf:RDF" * 3_000_000))) == MAX_BYTES // MAX_PACKET + 1
    many = b"\xff\xd8" + b"\xff\xe2\0\2" * 5_000_000
    assert list(packets(many)) == []
    assert list(packets(b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0aaaa" + bytes(4)) * 1_000_000)) == []
    assert time.process_time() - started < 10
    assert xmp.MAX_PARTS == 100_000
