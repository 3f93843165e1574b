"""TIFF directories, built entry by entry, in both byte orders; and the orientation in an EXIF block, which is one
too."""

import struct

import pytest

from filters.images.header import ImageFault
from filters.images.tiff import jpeg_strips, orientation, outline, upright_exif
from tests.support.picture_files import ONE_PIXEL, corners, encode, reason, tiff


def fault(data: bytes) -> str:
    with pytest.raises(ImageFault) as caught:
        outline(data)
    return str(caught.value)


def big_endian(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return a big-endian TIFF; an entry's value is written out in 4 bytes."""
    listed = b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"MM\0*" + struct.pack(">IH", 8, len(entries)) + listed + bytes(4)


def changed(**values: int) -> bytes:
    """Return the TIFF of one pixel with other values of some tags."""
    tags = {"width": 256, "height": 257, "offset": 273, "bytes": 279}
    new = {tags[name]: value for name, value in values.items()}
    return tiff([(tag, kind, count, new.get(tag, value)) for tag, kind, count, value in ONE_PIXEL])


def test_a_directory_s_size_in_both_byte_orders() -> None:
    found = outline(changed(width=70, height=50))
    assert (found.format, found.width, found.height, found.frames, found.complete) == ("TIFF", 70, 50, 1, True)
    short = struct.pack(">HH", 70, 0)  # a value of 2 bytes stands at the left of its 4
    found = outline(big_endian((256, 3, 1, short), (257, 4, 1, struct.pack(">I", 50))))
    assert (found.width, found.height) == (70, 50)


def test_a_turned_picture_comes_upright_and_is_not_turned_again() -> None:
    """Pillow turns a TIFF by itself: the size is as seen, the orientation left to apply is 1."""
    sizes = {}
    for turn in (1, 4, 5, 8):
        found = outline(tiff([*ONE_PIXEL[2:], (256, 3, 1, 70), (257, 3, 1, 50), (274, 3, 1, turn)]))
        sizes[turn] = (found.width, found.height, found.orientation)
    assert sizes == {1: (70, 50, 1), 4: (70, 50, 1), 5: (50, 70, 1), 8: (50, 70, 1)}


@pytest.mark.parametrize("turn", [0, 9, 255, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(turn: int) -> None:
    found = outline(tiff([*ONE_PIXEL[2:], (256, 3, 1, 70), (257, 3, 1, 50), (274, 3, 1, turn)]))
    assert (found.width, found.height) == (70, 50)
    assert reason(encode(corners(), "TIFF", tiffinfo={274: turn})) is None


def test_complete_is_a_file_that_reaches_its_last_strip() -> None:
    """The file is 8 + 2 + 6 * 12 + 4 = 86 bytes long."""
    assert len(changed()) == 86
    assert [outline(changed(offset=offset)).complete for offset in (85, 86)] == [True, False]
    assert [outline(changed(offset=80, bytes=size)).complete for size in (6, 7)] == [True, False]
    assert outline(tiff(ONE_PIXEL[:4])).complete  # it names no strips: the decoder will say more
    unread = [(tag, 5 if tag == 273 else kind, count, value) for tag, kind, count, value in ONE_PIXEL]
    assert not outline(tiff(unread, bytes(8))).complete  # offsets that are no integers


def test_tags_that_no_decoder_needs_are_struck_out() -> None:
    """Their field type becomes 0, which does not exist; so does that of a tag that stands twice. No page follows."""
    data = tiff([*ONE_PIXEL, (256, 3, 1, 9), (700, 1, 4, 7)])
    data = data[: 10 + 8 * 12] + struct.pack("<I", 8) + data[10 + 8 * 12 + 4 :]  # the next page is this one again
    pixels = outline(data).pixels
    kinds = [struct.unpack_from("<HH", pixels, 10 + 12 * n) for n in range(8)]
    assert kinds == [(256, 3), (257, 3), (258, 3), (262, 3), (273, 4), (279, 4), (256, 0), (700, 0)]
    assert pixels[10 + 8 * 12 :] == bytes(4)
    assert len(pixels) == len(data)


def test_corrupt_directories() -> None:
    assert fault(changed(width=0)) == "corrupt: TIFF of 0 x 1 pixels"
    assert fault(tiff(ONE_PIXEL[1:])) == "corrupt: TIFF of None x 1 pixels"
    two = [(256, 3, 2, 1), *ONE_PIXEL[1:]]  # two widths are none
    assert fault(tiff(two)) == "corrupt: TIFF of None x 1 pixels"
    assert fault(b"II+\0\x08\0\0\0" + bytes(100)) == "not_an_image: BigTIFF is not read"


def test_cut_directories() -> None:
    whole = changed()
    assert {fault(whole[:size]) for size in range(4, 8)} == {"truncated: TIFF ends within its header"}
    assert {fault(whole[:size]) for size in range(8, 82)} == {"truncated: TIFF ends within its directory"}
    assert fault(b"II*\0" + struct.pack("<I", 0xFFFFFFFF)) == "truncated: TIFF ends within its directory"


def test_tags_that_claim_more_than_the_file() -> None:
    assert reason(tiff([*ONE_PIXEL, *((tag, 7, 900, 0) for tag in (320, 336, 347, 34675))], bytes(1000))) == "corrupt"
    assert reason(tiff([*ONE_PIXEL, (34675, 7, 10_000, 0)], bytes(1000))) == "truncated"
    assert (
        reason(tiff([*ONE_PIXEL, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 1)]))
        == "corrupt"
    )


def test_orientation_of_an_exif_block() -> None:
    turned = tiff([(271, 2, 4, 0), (274, 3, 1, 6)])
    assert orientation(turned) == orientation(b"Exif\0\0" + turned) == 6
    assert orientation(big_endian((274, 3, 1, b"\0\x08\0\0"))) == 8
    assert [orientation(tiff([(274, 3, 1, value)])) for value in (0, 1, 8, 9)] == [1, 1, 8, 1]


def test_an_exif_block_that_is_none_turns_nothing() -> None:
    for block in (b"", b"Exif\0\0", b"rubbish" * 9, tiff([(274, 3, 1, 6)])[:20], tiff([]), tiff([(274, 2, 1, 6)])):
        assert orientation(block) == 1


def test_strips_and_tiles_of_real_files() -> None:
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}):
        data = encode(corners(), "TIFF", **options)
        found = outline(data)
        assert (found.width, found.height, found.complete) == (48, 32, True)
        assert reason(data) is None


def test_strips_of_jpeg_data_come_with_the_tables_before_them() -> None:
    """Tables and strips are streams of their own in the file; together they are JPEGs again."""
    tail = b"\xff\xd8TABLES\xff\xd9" + b"\xff\xd8one\xff\xd9"
    entries = [(256, 4, 1, 9), (257, 4, 1, 9), (259, 3, 1, 7), (273, 4, 1, 108), (279, 4, 1, 7), (347, 7, 10, 98)]
    data = tiff([*entries, (258, 3, 1, 8)], tail)
    assert data[98:108] == tail[:10]
    assert list(jpeg_strips(data)) == [b"\xff\xd8TABLESone\xff\xd9"]
    lzw = [(tag, kind, n, 5 if tag == 259 else value) for tag, kind, n, value in entries]
    assert list(jpeg_strips(tiff([*lzw, (258, 3, 1, 8)], tail))) == []


def test_strips_that_claim_more_than_the_file_are_not_read() -> None:
    """A thousand strips that each are the whole file: 50 GB of a file of 50 MB."""
    count = 1000
    entries = [(256, 4, 1, 9), (257, 4, 1, 9), (259, 3, 1, 7), (273, 4, count, 74), (279, 4, count, 74 + 4 * count)]
    sizes = struct.pack("<I", 74 + 8 * count) * count
    assert len(list(jpeg_strips(tiff(entries, struct.pack("<I", 8) * count + sizes)))) == 1


def test_an_exif_block_is_set_upright() -> None:
    assert upright_exif(tiff([(274, 3, 1, 6), (271, 2, 1, 65)])) == tiff([(274, 3, 1, 1), (271, 2, 1, 65)])
    assert upright_exif(b"Exif\0\0" + tiff([(274, 4, 1, 8)])) == b"Exif\0\0" + tiff([(274, 4, 1, 1)])
    turned = big_endian((274, 3, 1, struct.pack(">HH", 3, 0)))
    assert orientation(upright_exif(turned)) == 1
    assert [upright_exif(data) for data in (b"", b"II*\0broken", tiff([]))] == [b"", b"II*\0broken", tiff([])]


@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        ([(278, 3, 1, 1)], ""),
        ([(257, 3, 1, 3), (278, 3, 1, 1)], "1 of 3 strips"),
        ([(257, 3, 1, 3), (278, 3, 1, 2)], "1 of 2 strips"),
        ([(277, 3, 1, 3), (284, 3, 1, 2)], "1 of 3 strips"),  # a plane for each sample
        ([(273, 4, 1, 0)], "1 of 1 strips lie nowhere"),
        ([(256, 3, 1, 9_000)], "1 of 1 strips end behind the file"),
    ],
)
def test_strips_that_are_missing_by_hand(entries: list[tuple[int, int, int, int]], missing: str) -> None:
    given = {entry[0]: entry for entry in [*ONE_PIXEL, *entries]}
    assert outline(tiff(list(given.values()))).missing == missing
