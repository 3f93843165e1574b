"""Files that end before their picture does, in formats whose decoders show what came and say nothing."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from filters.images.decode import ImageLimits, store
from filters.images.header import ImageFault, Outline
from filters.images.whole import row_bytes, whole
from tests.support.picture_files import encode, png, reason

SIZE = (48, 32)


def noise(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(9)
    return Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).convert(mode)


def chunked(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of chunks with right checksums."""
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pieces(data: bytes) -> dict[bytes, bytes]:
    at, found = 8, dict[bytes, bytes]()
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        found[kind] = found.get(kind, b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_png_whose_rows_end_early_in_a_sound_stream_is_truncated(share: float) -> None:
    """The stream, its sum, and every chunk are as they should be; the rows below are missing."""
    found = pieces(encode(noise(), "PNG"))
    rows = zlib.decompress(found[b"IDAT"])
    assert len(rows) == 32 * 145
    cut = zlib.compress(rows[: int(len(rows) * share)])
    assert reason(chunked((b"IHDR", found[b"IHDR"]), (b"IDAT", cut), (b"IEND", b""))) == "truncated"
    assert reason(chunked((b"IHDR", found[b"IHDR"]), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))) is None
    assert reason(chunked((b"IHDR", found[b"IHDR"]), (b"IDAT", zlib.compress(rows + rows)), (b"IEND", b""))) is None


def test_a_png_whose_stream_is_cut_is_truncated() -> None:
    found = pieces(encode(noise(), "PNG"))
    cut = found[b"IDAT"][: len(found[b"IDAT"]) // 2]
    assert reason(chunked((b"IHDR", found[b"IHDR"]), (b"IDAT", cut), (b"IEND", b""))) == "truncated"


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_png_whose_checksum_is_wrong_is_corrupt(kind: bytes) -> None:
    data = bytearray(encode(noise("P"), "PNG"))
    assert reason(bytes(data)) is None
    at = data.index(kind)
    length = int.from_bytes(data[at - 4 : at], "big")
    data[at + 4 + length] ^= 1
    assert reason(bytes(data)) == "corrupt"


def test_the_bytes_of_rows_by_hand() -> None:
    """A row of 5 pixels of 2 bits has 2 bytes and 1 for its filter; interlaced, 5 x 3 pixels come in 6 passes."""
    assert row_bytes(5, 3, 2, 0, 0, 0, 0) == 3 * 3
    assert row_bytes(5, 3, 8, 2, 0, 0, 0) == 3 * 16
    assert row_bytes(5, 3, 16, 6, 0, 0, 0) == 3 * 41
    # Adam7 on 5 x 3: 1x1, 1x1, -, 1x1 (row 0, column 2), 3x1 (row 2), 2x2, 5x1
    assert row_bytes(5, 3, 8, 0, 0, 0, 1) == 2 + 2 + 0 + 2 + 4 + 2 * 3 + 6


@pytest.mark.parametrize(("mode", "options"), [("1", {}), ("L", {}), ("P", {}), ("RGBA", {}), ("I;16", {})])
def test_sound_pngs_of_every_kind_are_kept(mode: str, options: dict[str, Any]) -> None:
    grey = Image.fromarray(np.asarray(noise("L")).astype(np.uint16) * 200)
    assert reason(encode(grey if mode == "I;16" else noise(mode), "PNG", **options)) is None


def test_an_interlaced_png_is_counted_pass_by_pass() -> None:
    """4 x 4 pixels of grey: passes of 1, 0, 1 (row 0, column... ) pixels; hand-made, since Pillow writes none."""
    wanted = row_bytes(4, 4, 8, 0, 0, 0, 1)
    head = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 1)
    for rows, expected in ((wanted, None), (wanted - 1, "truncated")):
        data = chunked((b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
        assert reason(data) == expected


def lzw_cleared(indices: bytes) -> bytes:
    """Return GIF's image data for 8-bit colours: 9-bit codes with a clear code before every 100, and the end code."""
    bits, count, out = 0, 0, bytearray()
    codes = [code for at in range(0, len(indices), 100) for code in (256, *indices[at : at + 100])] + [257]
    for code in codes:
        bits |= code << count
        count += 9
        while count >= 8:
            out.append(bits & 255)
            bits, count = bits >> 8, count - 8
    out.append(bits & 255)
    blocks = b"".join(bytes([len(out[at : at + 255])]) + out[at : at + 255] for at in range(0, len(out), 255))
    return b"\x08" + blocks + b"\0"


def gif(indices: bytes, *, interlaced: bool = False, control: bytes = b"") -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 16, 15, 0xF7, 0, 0) + bytes(v for n in range(256) for v in (n, n, 255 - n))
    return head + control + b"," + struct.pack("<HHHHB", 2, 3, 12, 10, 0x40 * interlaced) + lzw_cleared(indices) + b";"


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("control", [b"", b"!\xf9\4\1\0\0\0\0", b"!\xf9\4\1\0\0\7\0"])
@pytest.mark.parametrize("last", [0, 1, 7, 255])
def test_a_gif_whose_data_end_early_with_an_end_code_is_truncated(last: int, control: bytes, interlaced: bool) -> None:
    """A frame of 12 x 10 in a screen of 16 x 15, whichever colour comes last and whichever is transparent."""
    indices = bytes([n % 200 for n in range(119)]) + bytes([last])
    assert reason(gif(indices, interlaced=interlaced, control=control)) is None
    for count in (119, 60, 1):
        assert reason(gif(indices[:count], interlaced=interlaced, control=control)) == "truncated"


def directory(data: bytes) -> dict[int, tuple[int, int, int]]:
    """Return tag -> (where its first value stands, bytes of a value, count) of a little-endian TIFF."""
    start = int.from_bytes(data[4:8], "little")
    found = {}
    for at in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        tag, kind, count, value = struct.unpack_from("<HHII", data, at)
        size = {3: 2, 4: 4}.get(kind, 1)
        found[tag] = (at + 8 if size * count <= 4 else value, size, count)
    return found


def strips(data: bytes, tag: int, number: int, value: int) -> bytes:
    """Return a TIFF with another value of an entry of strips."""
    at, size, _ = directory(data)[tag]
    changed = bytearray(data)
    changed[at + number * size : at + (number + 1) * size] = value.to_bytes(size, "little")
    return bytes(changed)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_a_tiff_without_some_of_its_strips_is_truncated(compression: str | None) -> None:
    options = {"compression": compression} if compression else {}
    data = encode(noise(), "TIFF", tiffinfo={278: 8}, **options)
    assert directory(data)[273][2] == 4
    assert reason(data) is None
    assert reason(strips(data, 273, 3, 0)) == "truncated"  # a strip that lies nowhere: sparse
    fewer = bytearray(data)
    start = int.from_bytes(data[4:8], "little")
    entry = next(at for at in range(start + 2, len(data), 12) if data[at : at + 2] == b"\x11\1")
    struct.pack_into("<I", fewer, entry + 4, 3)
    assert reason(bytes(fewer)) == "truncated"


def test_a_tiff_whose_last_strip_ends_behind_the_file_is_truncated() -> None:
    data = encode(noise(), "TIFF", tiffinfo={278: 8})
    assert reason(strips(data, 273, 3, len(data) - 100)) == "truncated"
    assert reason(strips(data, 279, 3, 0)) is None  # a writer's slip: the data are there, and their size is known


def test_a_tiff_of_jpeg_strips_is_read_as_jpegs_are() -> None:
    data = encode(noise(), "TIFF", tiffinfo={278: 16}, compression="jpeg")
    (at, size, _), (sizes, width, _) = directory(data)[273], directory(data)[279]
    first = int.from_bytes(data[at + size : at + 2 * size], "little")
    length = int.from_bytes(data[sizes + width : sizes + 2 * width], "little")
    half = first + length * 2 // 3
    changed = bytearray(data)
    changed[half : half + 2] = b"\xff\xd9"
    assert reason(bytes(changed)) == "truncated"


def test_a_strip_that_claims_to_be_a_monster_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """65,500 x 65,500 pixels in a strip of a picture of 48 x 32: 25 GB in a progressive one."""
    data = encode(noise(), "TIFF", compression="jpeg")
    at = data.index(b"\xff\xc0")
    claim = data[: at + 5] + struct.pack(">HH", 65_500, 65_500) + data[at + 9 :]
    monkeypatch.setattr("filters.images.whole.whole_scans", lambda pixels: pytest.fail("read"))
    assert reason(claim) == "corrupt"


def test_an_outline_that_names_what_is_missing_is_truncated() -> None:
    with pytest.raises(ImageFault, match=r"^truncated: TIFF: 3 of 4 strips$"):
        whole(Outline("TIFF", 4, 4, b"", missing="3 of 4 strips"))
    outline = Outline("BMP", 4, 4, b"BM")
    assert whole(outline) == (outline, False)


def test_a_large_png_is_inflated_in_pieces() -> None:
    data = encode(Image.new("RGB", (3000, 2000), (9, 9, 9)), "PNG")
    assert store(data, ImageLimits(store_side=64)).original_width == 3000
    assert Image.open(io.BytesIO(store(png(1, 1, (8, 0), b"\0\7"), ImageLimits()).jpeg)).size == (1, 1)
