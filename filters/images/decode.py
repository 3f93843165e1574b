"""Let foreign bytes become pixels: the one gate, which reads the header first and answers with a picture or a
reason."""

import io
import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from filters.images import gif_bmp as gif
from filters.images import jpeg, tiff
from filters.images import png_webp_avif as chunks
from filters.images.header import Blame, ImageFault, Outline
from filters.images.jpeg_scans import clean_pixels, scale_of
from filters.images.libtiff import fault_of, listening
from filters.images.whole import whole

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFile

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = ["Header", "ImageFault", "ImageLimits", "Stored", "inspect", "open_picture", "open_picture_at", "store"]

MAX_JPEG_SIDE = 65_500  # libjpeg's limit, in pixels
MARGIN = (
    1.25  # a JPEG may be decoded at a half, a quarter or an eighth that is still this much larger than what is stored
)
HASHED_SIDE = 256
"""Pixels of the short side at which a picture is decoded at least to be hashed (filters/images/pdq.py)."""
MARKS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Outline]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8\xff") or data == b"\xff\xd8", jpeg.outline),
    (lambda data: data.startswith(chunks.PNG_MARK), chunks.png),
    (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), gif.gif),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", chunks.webp),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), tiff.outline),
    (chunks.is_avif, chunks.avif),
    (lambda data: data[:2] == b"BM" and gif.is_bmp(data), gif.bmp),
)
_WARNINGS = threading.Lock()  # Python's warning filters are the process's: one thread at a time may quieten them


@dataclass(frozen=True)
class ImageLimits:
    """`max_pixels`: width x height. `store_side`: short side of stored pictures in pixels, None for no limit.
    `jpeg_quality`: 1..100. `keep_metadata`: EXIF, XMP, IPTC and comments stay in what is stored."""

    max_pixels: int = 100_000_000
    store_side: int | None = None
    jpeg_quality: int = 95
    keep_metadata: bool = False


@dataclass(frozen=True)
class Header:
    """What the header says: `format` in Pillow's words, size in pixels as seen upright (AVIF: as coded), `frames` 1, or
    2 for more."""

    format: str
    width: int
    height: int
    frames: int


@dataclass(frozen=True)
class Stored:
    """A picture as `pairs/` keeps it: an upright 8-bit sRGB JPEG, its size, and the size before it was made smaller
    (pixels, upright). `picture`: what was encoded or, at a short side of HASHED_SIDE or more, what a kept JPEG shows,
    where it is at hand: who hashes it saves a decode."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    picture: "Image.Image | None" = field(default=None, compare=False, repr=False)


def inspect(data: bytes, limits: ImageLimits) -> Header:
    """Read the header only; no pixel is decoded.

    Raises ImageFault: not_an_image, too_many_pixels, animated (several frames; a second page or MPO picture is none),
    truncated, corrupt.
    """
    outline = _outline(data, limits)
    width, height = _seen(outline.width, outline.height, outline.orientation)
    return Header(outline.format, width, height, outline.frames)


def open_picture(data: bytes, limits: ImageLimits, *, stored: bool = False) -> "Image.Image":
    """Decode to upright 8-bit sRGB in mode RGB and full size, transparent pixels on white. Raises ImageFault.

    `stored`: these bytes came out of `store`, so it is known that no part of the picture is missing.
    """
    outline = _outline(data, limits)
    return _decode(outline if stored else whole(outline)[0], limits)[0]


def open_picture_at(data: bytes, limits: ImageLimits, side: int) -> "Image.Image":
    """Decode as `open_picture`; a JPEG may come at a half, a quarter or an eighth, if its short side is still `side`
    pixels or more. Raises ImageFault."""
    return _decode(_outline(data, limits), limits, side)[0]


def store(data: bytes, limits: ImageLimits) -> Stored:
    """Return the picture as it is stored, its short side at most `limits.store_side`.

    The scans of an upright 8-bit sRGB JPEG of three components that fits are kept byte for byte (baseline or
    progressive), up to the end of the picture; nothing that is no part of it stays. Others are encoded again at 4:4:4.
    With `limits.keep_metadata` EXIF (less its turning, which is done), XMP, IPTC and comments come along, in a kept
    file its sRGB profile and application segments too. Raises ImageFault.
    """
    outline, side = _outline(data, limits), limits.store_side
    fits = side is None or min(outline.width, outline.height) <= side
    stays = fits and outline.plain and outline.orientation == 1
    at_once = _at_once(outline, HASHED_SIDE if stays else side and math.ceil(MARGIN * side))
    was_read = at_once is not None
    if at_once is None:
        outline, was_read = whole(outline)
    if stays and _is_srgb_jpeg(outline, limits, was_read):
        kept = outline.width, outline.height
        return Stored(_as_it_came(outline, limits), *kept, *kept, None if at_once is None else _picture(at_once))
    picture, (width, height) = _reduced(outline, limits, None if stays else at_once)
    if max(picture.size) > MAX_JPEG_SIDE:
        raise ImageFault(
            "too_many_pixels",
            f"{picture.width} x {picture.height}: a side of a JPEG has at most {MAX_JPEG_SIDE} pixels",
        )
    encoded = _jpeg(picture, limits.jpeg_quality)
    if limits.keep_metadata:
        encoded = jpeg.with_metadata(encoded, jpeg.described(outline.metadata))
    return Stored(encoded, picture.width, picture.height, width, height, picture)


def _at_once(outline: Outline, side: int | None) -> "Pixels | None":
    """Return the pixels of a whole JPEG of three components as coded, in the scale in which `side` asks for them; None
    for what `whole` has to judge. One decode then tells both that nothing is missing and what it shows."""
    if outline.missing or not outline.plain:
        return None
    size = outline.width, outline.height
    scale = 1 if side is None else scale_of(size, _fitted(*size, min(side, *size)))
    pixels = clean_pixels(outline.pixels, size, scale)
    if pixels is None:
        return None
    with Blame(outline.format):
        seen = _decoder(outline.format)(io.BytesIO(outline.pixels))
        return pixels if (seen.mode, seen.size) == ("RGB", size) else None


def _reduced(outline: Outline, limits: ImageLimits, at_once: "Pixels | None") -> "tuple[Image.Image, tuple[int, int]]":
    """Return (upright sRGB picture whose short side is at most `limits.store_side`, its size before, upright)."""
    from filters.images.srgb import is_srgb

    side, size = limits.store_side, (outline.width, outline.height)
    if side is not None and at_once is not None and min(size) > side and outline.orientation == 1:
        target = _fitted(*size, side)
        if at_once.shape[:2] == size[::-1] and min(size) < 4 * min(target) and is_srgb(outline.profile):
            return _by_area(at_once, target), size  # spares two copies of the large picture
    picture, (width, height) = _decode(outline, limits, side, at_once)
    if side is None or min(width, height) <= side:
        return picture, (width, height)
    is_averaged = picture.width * picture.height < width * height
    return _smaller(picture, _fitted(width, height, side), is_averaged), (width, height)


def _as_it_came(outline: Outline, limits: ImageLimits) -> bytes:
    if not limits.keep_metadata:
        return outline.pixels
    profile = jpeg.icc_segments(outline.profile) if outline.profile else ()
    return jpeg.with_metadata(outline.pixels, (*outline.metadata, *profile))


def _outline(data: bytes, limits: ImageLimits) -> Outline:
    """Walk the header and judge it. Raises ImageFault."""
    walk = next((walk for is_it, walk in MARKS if is_it(data)), None)
    if walk is None:
        raise ImageFault("not_an_image", f"starts with {data[:24]!r}; wanted JPEG, PNG, GIF, WebP, TIFF, BMP or AVIF")
    outline = walk(data)
    _check_pixels(outline.width, outline.height, limits)
    if outline.frames > 1:
        raise ImageFault("animated", f"{outline.format} of more than one frame")
    return outline


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageFault("too_many_pixels", f"{width} x {height}, at most {limits.max_pixels} pixels are decoded")


def _seen(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size whose short side is `side`, the long one rounded."""
    short = min(width, height)
    return max(side, round(width * side / short)), max(side, round(height * side / short))


def _is_srgb_jpeg(outline: Outline, limits: ImageLimits, was_read: bool) -> bool:
    """Say whether a JPEG's pixels are sRGB as they stand. Raises ImageFault where Pillow does not open it."""
    from filters.images.srgb import is_srgb

    if not was_read:
        _load(outline, limits, 1)  # an eighth of the size: all bits are read, fewer are transformed
    with Blame(outline.format):
        mode = _decoder(outline.format)(io.BytesIO(outline.pixels)).mode
    return mode == "RGB" and is_srgb(outline.profile)


def _decode(
    outline: Outline, limits: ImageLimits, side: int | None = None, at_once: "Pixels | None" = None
) -> "tuple[Image.Image, tuple[int, int]]":
    """Return (upright sRGB picture, its size as coded but upright). With `side` a JPEG may come smaller, yet MARGIN x
    side or more. `at_once`: its pixels, where they are at hand."""
    from filters.images.srgb import to_srgb, upright
    from filters.images.tiff import orientation

    if at_once is None:
        picture: Image.Image = _load(outline, limits, None if side is None else math.ceil(MARGIN * side))
    else:
        picture = _picture(at_once)
    is_avif = outline.format == "AVIF"
    turn = orientation(picture.info.get("exif", b"")) if is_avif else outline.orientation
    size = picture.size if is_avif else (outline.width, outline.height)
    with Blame(f"{outline.format} of mode {picture.mode}"):
        rgb = upright(to_srgb(picture, outline.profile or picture.info.get("icc_profile")), turn)
    return rgb, _seen(*size, turn)


def _load(outline: Outline, limits: ImageLimits, side: int | None) -> "Image.Image":
    """Decode with the one decoder that the header asks for; every error and warning of it becomes a reason or
    nothing."""
    with Blame(outline.format, "truncated" if outline.complete else ""):
        if outline.format not in ("GIF", "TIFF"):  # only these two warn
            return _opened(outline, limits, side)
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _opened(outline, limits, side) if outline.format == "GIF" else _tiff(outline, limits)


def _opened(outline: Outline, limits: ImageLimits, side: int | None) -> "ImageFile.ImageFile":
    picture = _decoder(outline.format)(io.BytesIO(outline.pixels))
    _check_pixels(*picture.size, limits)
    if outline.format in ("WEBP", "AVIF") and getattr(picture, "n_frames", 1) > 1:
        raise ImageFault("animated", f"{outline.format} of more than one frame")
    if outline.format != "AVIF" and picture.size != (outline.width, outline.height):
        raise ImageFault(
            "corrupt", f"{outline.format} of {outline.width} x {outline.height} in one place, {picture.size} in another"
        )
    if side is not None and outline.format == "JPEG":
        picture.draft("", _fitted(*picture.size, min(side, *picture.size)))
    picture.load()
    return picture


def _tiff(outline: Outline, limits: ImageLimits) -> "ImageFile.ImageFile":
    with listening() as told:
        picture = _opened(outline, limits, None)
    if fault := fault_of(told):
        raise fault
    return picture


def _decoder(format_: str) -> "Callable[[io.BytesIO], ImageFile.ImageFile]":
    """Return Pillow's class for a format. Called by itself, so no other plugin is ever tried."""
    from PIL import (
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "AVIF": AvifImagePlugin.AvifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }[format_]


def _smaller(picture: "Image.Image", size: tuple[int, int], is_averaged: bool) -> "Image.Image":
    """Make an RGB picture smaller: by area, as img2dataset does; bicubic where the decoder has averaged pixels already.

    By area takes half the time of Pillow's bicubic on a whole picture. After a scaled decode a second averaging would
    blur, and bicubic on the fewer pixels costs little.
    """
    from PIL import Image

    if is_averaged:
        return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    import numpy as np

    steps = min(picture.width // (2 * size[0]), picture.height // (2 * size[1]))
    if steps > 1:  # whole blocks first, in place: an array of the large picture would double its memory
        picture = picture.reduce(steps)
    return _by_area(np.asarray(picture), size)


def _by_area(pixels: "Pixels", size: tuple[int, int]) -> "Image.Image":
    import cv2

    cv2.setNumThreads(1)  # workers are processes
    return _picture(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False))


def _picture(pixels: "Pixels") -> "Image.Image":
    from PIL import Image

    return Image.fromarray(pixels)


def _jpeg(picture: "Image.Image", quality: int) -> bytes:
    """Encode as baseline JPEG: the same pixels give the same bytes, and nothing but pixels goes in."""
    picture.info.clear()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
