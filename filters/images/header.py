"""Hold what a picture's header says, and the fault of bytes that are no good picture."""

from dataclasses import dataclass
from types import TracebackType

MAX_PROFILE = 4 << 20  # bytes of a colour profile that is read; the largest of printing presses have 3 MB


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
    `pixels`: the bytes a decoder needs, up to the picture's end; comments, XMP, EXIF and thumbnails are left out, so
    decoders never parse them, and what stands behind the end is never seen again.
    `complete`: the container reaches its end mark. `orientation`: EXIF's 1..8, still to be applied.
    `plain`: a JPEG of three 8-bit components: what readers of `.jpg` files expect.
    `profile`: ICC bytes of a JPEG or a PNG, None for none and where a decoder finds them itself.
    `metadata`: segments of EXIF, XMP and the like in a JPEG's form, none of which asks for turning.
    `missing`: which part of the picture the file does not hold, "" for none that the container knows of.
    """

    format: str
    width: int
    height: int
    pixels: bytes
    frames: int = 1
    complete: bool = True
    orientation: int = 1
    plain: bool = False
    profile: bytes | None = None
    metadata: tuple[bytes, ...] = ()
    missing: str = ""


def cut(format_: str, where: str) -> ImageFault:
    """Return the fault of a file that ends too early."""
    return ImageFault("truncated", f"{format_} ends within its {where}")


@dataclass(frozen=True)
class Blame:
    """Whatever a decoder raises becomes an ImageFault: truncated where its words hold `cut_short` ("": always, None:
    never), else corrupt."""

    what: str
    cut_short: str | None = None

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise ImageFault from the error."""
        if isinstance(error, Exception) and not isinstance(error, ImageFault):
            is_cut = self.cut_short is not None and self.cut_short in str(error).lower()
            raise ImageFault(
                "truncated" if is_cut else "corrupt", f"{self.what}: {type(error).__name__}: {error}"
            ) from error
