"""GIF and BMP, built by hand: size, further frames, what a decoder gets to see, and where they are wrong."""

import struct

import pytest

from filters.images.gif_bmp import MAX_RLE, bmp, gif, is_bmp
from filters.images.header import ImageFault, Outline
from tests.support.picture_files import GREEN, corners, encode, pixel, reason

HEAD = b"GIF89a" + struct.pack("<HHBBB", 3, 2, 0x80, 0, 0) + bytes(6)  # a table of two colours
FRAME = b"," + struct.pack("<HHHHB", 0, 0, 3, 2, 0) + b"\2\3\x44\1\5\0"
CONTROL, OTHER = b"!\xf9\4\1\0\0\0\0", b"!\xf9\4\0\0\0\0\0"
COMMENT = b"!\xfe\5hello\4 you\0"
END = b";"


def fault(data: bytes) -> str:
    with pytest.raises(ImageFault) as caught:
        (gif if data.startswith(b"GIF") else bmp)(data)
    return str(caught.value)


def test_a_gif_of_one_frame() -> None:
    assert gif(HEAD + FRAME + END) == Outline("GIF", 3, 2, HEAD + FRAME + END)
    assert gif(HEAD + FRAME + b"rubbish").frames == 1


def test_a_second_frame_is_seen_behind_extensions() -> None:
    found = gif(HEAD + FRAME + CONTROL + COMMENT + FRAME + END)
    assert (found.frames, found.pixels) == (2, HEAD + FRAME + END)  # a decoder would see the first alone


def test_comments_are_left_out_and_the_last_control_block_stays() -> None:
    """It names the see-through colour of the frame that follows."""
    assert gif(HEAD + CONTROL + COMMENT + OTHER + COMMENT + FRAME + END).pixels == HEAD + OTHER + FRAME + END


def test_a_frame_beyond_the_screen_makes_it_larger() -> None:
    frame = b"," + struct.pack("<HHHHB", 10, 20, 5, 6, 0x80) + bytes(6) + b"\2\3\x44\1\5\0"  # with its own table
    found = gif(HEAD + frame + END)
    assert (found.width, found.height, found.pixels) == (15, 26, HEAD + frame + END)


def test_a_cut_gif() -> None:
    whole = HEAD + CONTROL + FRAME + END
    for size in range(6, len(HEAD + CONTROL) + 11):
        assert fault(whole[:size]) == "truncated: GIF ends within its header"
    for size in range(len(HEAD + CONTROL) + 11, len(whole) - 1):
        assert not gif(whole[:size]).complete
    assert gif(whole[:-1]).complete  # its end mark alone is missing


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (HEAD + END, "GIF without a picture"),
        (HEAD + COMMENT + END, "GIF without a picture"),
        (HEAD[:6] + bytes(7) + b"," + bytes(9) + b"\2\0;", "GIF of 0 x 0 pixels with a frame of 0 x 0"),
        (HEAD + b"," + struct.pack("<HHHHB", 0, 0, 0, 2, 0) + b"\2\0;", "GIF of 3 x 2 pixels with a frame of 0 x 2"),
        (HEAD + b"!\xfe\0" * 500_000 + FRAME, "GIF of more than 500000 extensions"),
        (HEAD + b"!\xfe" + b"\1a" * 500_000 + b"\0" + FRAME, "GIF of more than 500000 sub-blocks"),
    ],
)
def test_corrupt_gifs(data: bytes, says: str) -> None:
    assert fault(data) == f"corrupt: {says}"


def dib(size: tuple[int, int], bits: int = 24, coding: int = 0, rows: bytes = b"") -> bytes:
    """Return a BMP of a 40-byte header; `rows` begin at byte 54."""
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, coding, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows


def test_a_bmp_counts_rows_of_whole_words() -> None:
    """3 pixels of 24 bits are 9 bytes, rounded up to 12; two rows are 24."""
    data = dib((3, 2), rows=bytes(24))
    assert bmp(data) == Outline("BMP", 3, 2, data)
    assert not bmp(data[:-1]).complete
    assert bmp(dib((33, 1), bits=1, rows=bytes(8))).complete  # 33 bits: 8 bytes
    assert not bmp(dib((33, 1), bits=1, rows=bytes(7))).complete


def test_rows_from_the_top_have_a_negative_height() -> None:
    found = bmp(dib((3, -2), rows=bytes(24)))
    assert (found.width, found.height, found.complete) == (3, 2, True)
    picture = encode(corners(2, 2), "BMP")
    assert pixel(corners(2, 2), 1, 0) == GREEN
    assert reason(picture[:22] + struct.pack("<i", -2) + picture[26:]) is None


def test_the_oldest_header_has_sizes_of_16_bits() -> None:
    core = b"BM" + struct.pack("<IHHI", 34, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24) + bytes(8)
    found = bmp(core)
    assert (found.width, found.height, found.complete) == (2, 1, True)  # 6 bytes, rounded up to 8
    assert not bmp(core[:-1]).complete


def test_run_lengths_are_read_up_to_a_mib() -> None:
    assert bmp(dib((9, 9), bits=8, coding=1, rows=b"\0\1")).complete  # its length says nothing of its size
    assert "run-length coded BMP of 1048577 bytes, at most 1048576" in fault(
        dib((9, 9), bits=8, coding=2, rows=bytes(MAX_RLE - 53))
    )


def test_corrupt_and_cut_bmps() -> None:
    assert fault(dib((0, 2))) == "corrupt: BMP of 0 x 2 pixels"
    assert fault(dib((-3, 2))) == "corrupt: BMP of -3 x 2 pixels"
    assert fault(dib((3, 0))) == "corrupt: BMP of 3 x 0 pixels"
    for size in (2, 13, 25, 53):
        assert fault(dib((3, 2))[:size]) == "truncated: BMP ends within its header"


def test_two_letters_alone_are_no_bmp() -> None:
    assert is_bmp(dib((3, 2)))
    assert is_bmp(b"BM")  # cut so early that nobody can tell
    assert not is_bmp(b"BMW cars are driven by people")
