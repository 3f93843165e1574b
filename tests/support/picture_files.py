"""Make picture files of every kind, honest and hostile, and read them back."""

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms

from filters.images.decode import ImageFault, ImageLimits, open_picture, store

LIMITS = ImageLimits(max_pixels=1_000_000, store_side=64)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(picture: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Return a picture of four plain quarters: red, green / blue, white."""
    picture = Image.new("RGB", (width, height), WHITE)
    picture.paste(RED, (0, 0, width // 2, height // 2))
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    return picture


def pixel(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = picture.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def quarters(picture: Image.Image) -> list[tuple[int, ...]]:
    """Return the colours amid the four quarters, rounded to 0 and 255: lossy codecs move them a little."""
    w, h = picture.size
    places = [(w // 4, h // 4), (3 * w // 4, h // 4), (w // 4, 3 * h // 4), (3 * w // 4, 3 * h // 4)]
    return [tuple(255 if value > 127 else 0 for value in pixel(picture, x, y)) for x, y in places]


def reason(data: bytes, limits: ImageLimits = LIMITS) -> str | None:
    """Return the reason that the whole way gives, after checking that reading and storing agree."""
    found = []
    for way in (open_picture, store):
        try:
            way(data, limits)
            found.append(None)
        except ImageFault as fault:
            found.append(fault.reason if fault.detail else "a fault without details")
    assert found[0] == found[1]
    return found[0]


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 95}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 90}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
    ("BMP", {}),
    ("AVIF", {"quality": 90}),
]


def swapped_profile(colours: str = "brg") -> bytes:
    """Return an sRGB profile whose red, green and blue tags point at one another's: (255, 0, 0) under it is blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(profile[128:132], "big")
    entries = {profile[at : at + 4]: profile[at + 4 : at + 12] for at in range(132, 132 + 12 * count, 12)}
    table = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (entries[b"%cXYZ" % ord(colour)] for colour in colours), strict=True))
    listed = b"".join(name + {**entries, **table}[name] for name in entries)
    return profile[:132] + listed + profile[132 + 12 * count :]


def png(width: int, height: int, header: tuple[int, int], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a PNG built chunk by chunk. `header`: (bit depth, colour type); `rows`: filtered scanlines; `extra`:
    chunks before IDAT."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, *header, 0, 0, 0)),
        *extra,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


NO_PICTURES = {
    "html": b"<!DOCTYPE html><html><body>Gone</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "pdf": b"%PDF-1.7\n",
    "empty": b"",
    "zeros": bytes(1000),
    "text that starts like a BMP": b"BMW cars are driven by people who like them",
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "icon": b"\0\0\1\0\1\0\x10\x10" + bytes(100),
    "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    "big tiff": b"II+\0\x08\0\0\0" + bytes(100),
    "gif of another age": b"GIF90a" + bytes(100),
}


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """Return a little-endian TIFF of one directory. Entries: (tag, type, count, value)."""
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + bytes(4)
        + tail
    )


ONE_PIXEL = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
"""Entries of a grey TIFF whose one pixel is the byte at 8."""


def bombs() -> dict[str, bytes]:
    """Return small files whose headers claim 30,000 x 30,000 pixels."""
    side = 30_000
    jpeg = encode(corners(), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    bmp = encode(corners(), "BMP")
    avif = encode(corners(), "AVIF")
    ispe = avif.index(b"ispe")
    return {
        "png": png(side, side, (8, 2), bytes(1000)),
        "gif screen": b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;",
        "gif frame": b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, side, side, 0)
        + b"\2\2\x44\1\0;",
        "webp extended": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + (15_000).to_bytes(3, "little") * 2,
        "webp lossless": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f"
        + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
        + bytes(5),
        "webp lossy": b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383),
        "tiff": tiff(
            [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 8)]
        ),
        "jpeg": jpeg[: at + 5] + struct.pack(">HH", side, side) + jpeg[at + 9 :],
        "bmp": bmp[:18] + struct.pack("<ii", side, -side) + bmp[26:],
        "avif": avif[: ispe + 8] + struct.pack(">II", side, side) + avif[ispe + 16 :],
    }


def hungry(name: str) -> bytes:
    """Return a file that makes a trusting reader allocate or compute without end."""
    if name == "png text bomb":
        text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
        return png(1, 1, (8, 0), b"\0\7", *[(b"zTXt", text)] * 20)
    if name == "png profile bomb":
        return png(1, 1, (8, 0), b"\0\7", (b"iCCP", b"p\0\0" + zlib.compress(bytes(200_000_000), 9)))
    if name == "gif comment of 12 MB":  # joined piece by piece it takes minutes
        comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 47_000 + b"\0"
        gif = encode(corners(), "GIF")
        start = gif.index(b",", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
        return gif[:start] + comment + gif[start:]
    size = 1_000_000
    claims = [
        (tag, 7, size, 0) for tag in (*range(1_000, 34_000), *range(35_000, 65_000))
    ]  # 63,000 tags of 1 MB each: 63 GB
    if name == "tiff tags":
        return tiff([*ONE_PIXEL, *claims], bytes(size))
    block = tiff(claims, bytes(size))
    if name == "webp exif":
        return encode(corners(), "WEBP", exif=block)
    if name == "png exif":
        return png(1, 1, (8, 0), b"\0\7", (b"eXIf", block))
    if name == "jpeg exif":  # readers join the segments
        jpeg = encode(corners(), "JPEG")
        pieces = [block[at : at + 65_000] for at in range(0, len(block), 65_000)]
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 8) + b"Exif\0\0" + piece for piece in pieces)
        return jpeg[:2] + segments + jpeg[jpeg.index(b"\xff\xdb") :]
    assert name == "avif exif"
    harmless = b"II*\0\x08\0\0\0".ljust(len(block), b"\0")  # Pillow's writer reads what it is given
    return encode(corners(), "AVIF", exif=harmless).replace(harmless, block)
