"""What could hide in a JPEG's tables, fill bytes and restarts is not stored; what its scans use stays to the byte."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from filters.images.decode import ImageLimits, store
from filters.images.header import ImageFault
from filters.images.jpeg_tables import Tables, scan_data
from tests.support.picture_files import encode

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
WAYS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"progressive": True, "restart_marker_blocks": 3},
]
SECRET = bytes(range(1, 65))


def jpeg(**options: Any) -> bytes:
    rng = np.random.default_rng(3)
    return encode(Image.fromarray(rng.integers(0, 256, (83, 97, 3), dtype=np.uint8)), "JPEG", **options)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def quantisation(number: int, count: int = 900) -> bytes:
    return segment(0xDB, (bytes([number]) + SECRET) * count)


def huffman(number: int, count: int = 800) -> bytes:
    return segment(0xC4, (bytes([number, *[0] * 7, 64, *[0] * 8]) + SECRET) * count)


def stored(data: bytes) -> bytes:
    return store(data, ImageLimits()).jpeg


@pytest.mark.parametrize("options", WAYS)
def test_restart_markers_that_hold_a_message_are_taken_off(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    message = b"".join(b"\xff" + bytes([0xD0 + number % 7]) for number in range(50_000))
    assert stored(data[:-2] + message + EOI) == data
    assert stored(data[:-2] + message + b"loose" + EOI) == data


@pytest.mark.parametrize("options", WAYS)
def test_fill_bytes_are_taken_off(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    assert stored(data[:-2] + b"\xff" * 2_000_000 + EOI) == data
    amid = data.index(b"\xff\x00", data.index(b"\xff\xda"))
    assert stored(data[:amid] + b"\xff" * 2_000_000 + data[amid:]) == data
    if (restart := data.find(b"\xff\xd0")) > 0:
        assert stored(data[:restart] + b"\xff" * 2_000_000 + data[restart:]) == data


@pytest.mark.parametrize("options", WAYS)
def test_tables_that_no_scan_uses_are_taken_off(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    for hidden in (quantisation(3), quantisation(2), huffman(3), huffman(0x13), huffman(0x12)):
        assert SECRET in hidden
        assert stored(data[:20] + hidden * 35 + data[20:]) == data
        assert stored(data[:-2] + hidden + EOI) == data


@pytest.mark.parametrize("options", WAYS)
def test_of_a_table_that_is_defined_anew_before_its_use_the_last_stays(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    for hidden in (quantisation(0), quantisation(1), huffman(0), huffman(0x10), segment(0xDD, b"sx") * 900):
        if hidden[1] != 0xDD or "restart" in "".join(options):
            assert stored(data[:20] + hidden + data[20:]) == data


def test_a_segment_of_used_and_needless_tables_keeps_the_used_ones() -> None:
    data = jpeg()
    at = data.index(b"\xff\xdb")
    used = data[at + 4 : at + 69]
    mixed = segment(0xDB, b"\3" + SECRET + used + (b"\2" + SECRET) * 5)
    assert stored(data[:at] + mixed + data[at + 69 :]) == data


def test_a_table_of_a_number_that_does_not_exist_is_the_decoder_s_to_refuse() -> None:
    data = jpeg()
    for broken in (
        quantisation(4, 1),
        huffman(4, 1),
        huffman(0x20, 1),
        segment(0xDD, b"abc"),
        segment(0xDB, b"\0short"),
    ):
        with pytest.raises(ImageFault, match="corrupt"):
            stored(data[:20] + broken + data[20:])


def test_a_segment_of_thousands_of_tables_is_held_as_four() -> None:
    tables = Tables()
    for _ in range(2):
        assert len(tables.take(0xC4, b"".join(bytes([number % 4]) + bytes(16) for number in range(3_800))).tables) == 4
    assert len(tables.latest) == 4


def test_bytes_behind_more_restarts_than_there_are_units_are_corrupt() -> None:
    for options in WAYS:
        with pytest.raises(ImageFault, match="65 bytes behind the last restart interval"):
            stored(jpeg(**options)[:-2] + b"\xff\xd1" + b"z" * 40 + b"\xff\xd2" + b"z" * 25 + EOI)


def test_restarts_of_scans_by_hand() -> None:
    """97 x 83 pixels at 4:2:0 are 7 x 6 units of 16 x 16; the first component has 13 x 11 blocks, another 7 x 6."""
    frame = 0xC0, struct.pack(">BHHB", 8, 83, 97, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    tables = Tables()
    every, first, second = b"\3\1\0\2\x11\3\x11\0\x3f\0", b"\1\1\0\0\x3f\0", b"\1\2\0\0\x3f\0"
    assert [tables.restarts(frame, scan) for scan in (every, first, second)] == [0, 0, 0]
    tables.take(0xDD, b"\0\5")
    assert [tables.restarts(frame, scan) for scan in (every, first, second)] == [8, 28, 8]
    tables.take(0xDD, b"\0\x06")
    assert [tables.restarts(frame, scan) for scan in (every, first, second)] == [6, 23, 6]
    assert tables.restarts(frame, b"\1\7\0\0\x3f\0") is None  # a component that the frame does not name
    assert tables.restarts((0xC3, frame[1]), every) is None  # lossless: other units


def test_the_data_of_a_scan_by_hand() -> None:
    data = b"ab\xff\0\xff\xff\0c\xff\xd0d\xff\xff\xd1e\xff\xff\xd9"
    assert scan_data(data, 0, None) == (b"ab\xff\0\xff\0c\xff\xd0d\xff\xd1e", 16)
    assert scan_data(data, 0, 1) == (b"ab\xff\0\xff\0c\xff\xd0d", 16)
    assert scan_data(data, 1, 0) == (b"b\xff\0\xff\0c", 16)
    assert scan_data(b"no end", 3, 0) == (b"end", 6)


def test_tables_in_one_segment_or_in_many_stay_as_they_came() -> None:
    data = jpeg()
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xc4"]
    assert len(starts) == 4
    end = data.index(b"\xff\xda")
    bodies = [data[a + 4 : b] for a, b in itertools.pairwise([*starts, end])]
    joined = data[: starts[0]] + segment(0xC4, b"".join(bodies)) + data[end:]
    assert stored(joined) == joined
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(joined))), np.asarray(Image.open(io.BytesIO(data))))
