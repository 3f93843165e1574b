"""Say whether a picture's file holds the whole picture, where its decoder would show what came and be silent."""

import io
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

from filters.images import jpeg
from filters.images.gif_bmp import frame_at, with_transparency
from filters.images.header import Blame, ImageFault, Outline
from filters.images.jpeg_scans import whole_scans
from filters.images.png_webp_avif import png_chunks
from filters.images.tiff import TILE_PIXELS, jpeg_strips

if TYPE_CHECKING:
    from PIL import Image

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG's colour types (PNG, third edition, 11.2.1)
ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
"""First column, step, first row, step of each pass of an interlaced PNG (8.2)."""
STEP = 1 << 20  # bytes inflated at a time


def whole(outline: Outline) -> tuple[Outline, bool]:
    """Return (the outline less what stands behind a JPEG's data, whether a JPEG was read to its end).

    Raises ImageFault: truncated where a part of the picture is missing, corrupt where data are known to be damaged.
    What the decoder itself finds is left to it.
    """
    if outline.missing:
        raise ImageFault("truncated", f"{outline.format}: {outline.missing}")
    if outline.format == "JPEG":
        pixels, was_read = whole_scans(outline.pixels)
        return replace(outline, pixels=pixels), was_read
    if outline.complete and outline.format in CHECKS:
        CHECKS[outline.format](outline)
    return outline, False


def _png(outline: Outline) -> None:
    """Check the sums of what the decoder needs, and that all rows are there: Pillow looks at neither."""
    pixels = outline.pixels
    data = []
    for kind, start, end in png_chunks(pixels):
        if kind != b"IEND" and zlib.crc32(pixels[start + 4 : end - 4]) != int.from_bytes(pixels[end - 4 : end], "big"):
            raise ImageFault("corrupt", f"PNG: the checksum of a chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IDAT":
            data.append((start + 8, end - 4))
    wanted = row_bytes(*struct.unpack_from(">IIBBBBB", pixels, 16))
    inflate, got = zlib.decompressobj(), 0
    view = memoryview(pixels)
    try:
        for start, end in data:
            rest: bytes | memoryview = view[start:end]
            while len(rest) and got < wanted and not inflate.eof:
                got += len(inflate.decompress(rest, STEP))
                rest = inflate.unconsumed_tail
    except zlib.error:
        return  # the decoder says so too
    if data and got < wanted and inflate.eof:
        raise ImageFault("truncated", f"PNG: {got} of {wanted} bytes of rows")


def row_bytes(width: int, height: int, depth: int, colour: int, _: int, __: int, interlaced: int) -> int:
    """Return how many bytes a PNG's rows have before compression; a byte before each row names its filter."""
    bits = depth * SAMPLES.get(colour, 0)
    passes = ADAM7 if interlaced else ((0, 1, 0, 1),)
    sizes = ((-((x - width) // dx), -((y - height) // dy)) for x, dx, y, dy in passes)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def _gif(outline: Outline) -> None:
    """Look at the pixel that is coded last: one that was not brought is of whatever colour the screen is filled
    with."""
    pixels = outline.pixels
    left, top, width, height, interlaced = frame_at(pixels)
    row = height - 2 if interlaced and height % 2 and height > 1 else height - 1
    for ground in (0, 1):
        picture = _gif_on(pixels, ground)
        if picture is None or picture.getpixel((left + width - 1, top + row)) != ground:
            return
    raise ImageFault("truncated", "GIF: its data end before its last pixel")


def _gif_on(pixels: bytes, ground: int) -> "Image.Image | None":
    """Return the GIF on a ground of one colour of its table, None where the decoder refuses it, and will say so."""
    from PIL import GifImagePlugin

    try:
        with Blame("GIF"):
            picture = GifImagePlugin.GifImageFile(io.BytesIO(with_transparency(pixels, ground)))
            picture.load()
    except ImageFault:
        return None
    return picture


def _tiff(outline: Outline) -> None:
    """Read strips of JPEG data as JPEGs. One that claims more pixels than the whole picture, or whose header is none,
    is left to the decoder, which refuses it."""
    for strip in jpeg_strips(outline.pixels):
        try:
            part = jpeg.outline(strip)
        except ImageFault:
            continue
        if part.width * part.height <= max(outline.width * outline.height, TILE_PIXELS):
            whole(part)


CHECKS = {"PNG": _png, "GIF": _gif, "TIFF": _tiff}
