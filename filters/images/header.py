"""Hold what a picture's header says, and the fault of bytes that are no good picture."""

from dataclasses import dataclass


class ImageFault(Exception):
    """Bytes that do not become a picture.

    `reason`: not_an_image too_many_pixels animated truncated corrupt. `detail`: what was found, for logs.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Outline:
    """What a walk over the container found, before any decoder saw a byte.

    `width`, `height`: pixels as coded. `frames`: 1, or 2 for two and more: counting on costs what a hostile file asks.
    `pixels`: the bytes a decoder needs; comments, XMP, EXIF and thumbnails are left out, so decoders never parse them.
    `complete`: the container reaches its end mark. `orientation`: EXIF's 1..8, still to be applied.
    `plain`: a JPEG of three 8-bit components and nothing behind it: what readers of `.jpg` files expect.
    """

    format: str
    width: int
    height: int
    pixels: bytes
    frames: int = 1
    complete: bool = True
    orientation: int = 1
    plain: bool = False


def cut(format_: str, where: str) -> ImageFault:
    """Return the fault of a file that ends too early."""
    return ImageFault("truncated", f"{format_} ends within its {where}")
