"""Turn decoded pixels of any mode into upright 8-bit sRGB: depth, palette, alpha on white, CMYK, colour profiles."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from filters.images.header import MAX_PROFILE, ImageFault

STRIP_PIXELS = 1 << 21  # of a large picture turned at a time: 8 MB for each stage on the way
SAME = 2  # levels of 255: a profile that moves no colour further is sRGB
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC's names of colour spaces, and Pillow's modes
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (Exif 2.32, tag 0x0112) to what makes the picture upright; Pillow counts rotations anticlockwise."""


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as EXIF's orientation 1..8 wants it seen."""
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return RGB pixels in sRGB, transparent ones on white. `profile`: ICC bytes; one that fits neither mode nor
    standard is ignored.

    Large pictures are turned strip by strip, so that one copy of them is in memory and not one for each stage on the
    way. Raises ImageFault for modes that are no pictures (32-bit and Lab samples).
    """
    if picture.mode == "RGB" and "transparency" not in picture.info and is_srgb(profile):
        return picture
    rows = max(1, STRIP_PIXELS // picture.width)
    if rows >= picture.height:
        return _strip_to_srgb(picture, profile)
    whole = Image.new("RGB", picture.size)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        whole.paste(_strip_to_srgb(strip, profile), (0, top))
    return whole


def _strip_to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    colour, alpha = _apart(_eight_bit(picture))
    colour = _from_profile(colour, profile).convert("RGB")
    if alpha is None:
        return colour
    ground = Image.new("RGB", colour.size, (255, 255, 255))
    ground.paste(colour, mask=alpha)
    return ground


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit: the high byte, as Pillow takes it from 16-bit RGB."""
    if picture.mode in ("I", "F", "LAB"):
        raise ImageFault("not_an_image", f"samples of mode {picture.mode} have no fixed scale in sRGB")
    if not picture.mode.startswith("I;16"):
        return picture
    values_HW = np.asarray(picture)
    grey = Image.fromarray((values_HW >> 8).astype(np.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values_HW == clear, 0, 255).astype(np.uint8)))
    return grey


def _apart(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return (colour in mode L, RGB or CMYK; alpha in mode L, or None)."""
    if picture.mode in ("L", "RGB", "CMYK") and "transparency" not in picture.info:
        return picture, None
    if picture.mode in ("LA", "La"):
        grey = picture.convert("LA")
        return grey.getchannel("L"), grey.getchannel("A")
    if picture.mode != "CMYK" and picture.has_transparency_data:
        whole = picture.convert("RGBA")
        return whole.convert("RGB"), whole.getchannel("A")
    return (
        picture.convert("L") if picture.mode == "1" else picture if picture.mode == "CMYK" else picture.convert("RGB")
    ), None


def is_srgb(profile: bytes | None) -> bool:
    """Say whether RGB pixels under this profile are sRGB as they stand: there is none, or it changes no colour by more
    than SAME."""
    if not profile or len(profile) > MAX_PROFILE:
        return True
    space, transform = _transform(profile)
    return space != "RGB" or transform is None


def _from_profile(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile or len(profile) > MAX_PROFILE:
        return picture
    space, transform = _transform(profile)
    if transform is None:
        return picture
    if space == "RGB" and picture.mode == "L":
        picture = picture.convert("RGB")
    return (ImageCms.applyTransform(picture, transform) or picture) if picture.mode == space else picture


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return (mode that the profile describes, transform to sRGB); no transform where the profile is broken or is sRGB
    itself.

    The intent is perceptual, ICC's default and that of browsers.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = SPACES.get(source.profile.xcolor_space, "")
        if not mode:
            return "", None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "", None
    return mode, None if mode == "RGB" and _is_identity(transform) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid_HWC = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(27, 27, 3)
    moved = ImageCms.applyTransform(Image.fromarray(grid_HWC), transform)
    return moved is not None and int(np.abs(np.asarray(moved).astype(int) - grid_HWC).max()) <= SAME
