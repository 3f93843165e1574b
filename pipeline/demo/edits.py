"""Edit pictures the way the web does: re-encode, shrink, crop, stamp a stock agency's mark on them."""

import io

from PIL import Image, ImageDraw, ImageFont

from pipeline.demo.faults import encode

MARKS = ("shutterstock", "dreamstime", "depositphotos")
"""Words of the overlays: names that stock agencies print across their previews."""
TILT_DEGREES = 30


def decode(data: bytes) -> Image.Image:
    """Return one of the demo's own pictures as RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def reencoded(picture: Image.Image, quality: int = 40) -> bytes:
    """Return the same pixels as a JPEG of low quality."""
    return encode(picture, "JPEG", quality=quality)


def smaller(picture: Image.Image, least: int = 224) -> bytes:
    """Return the picture at half its sides, but with a short side of `least` pixels or more, as a JPEG."""
    scale = min(1.0, max(0.5, least / min(picture.size)))
    size = (round(picture.width * scale), round(picture.height * scale))
    return encode(picture.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90)


def cropped(picture: Image.Image, share: float = 0.02) -> bytes:
    """Return the picture without a margin of `share` of each side, as a JPEG."""
    width, height = picture.size
    dx, dy = round(width * share), round(height * share)
    return encode(picture.crop((dx, dy, width - dx, height - dy)), "JPEG", quality=90)


def thumbnail(picture: Image.Image, side: int) -> bytes:
    """Return the picture with a short side of `side` pixels, as a JPEG."""
    scale = side / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return encode(picture.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90)


def strip(picture: Image.Image, width: int = 1300, height: int = 240) -> bytes:
    """Return a wide strip out of the picture's middle, as a JPEG."""
    band = picture.width * height // width
    top = (picture.height - band) // 2
    piece = picture.crop((0, top, picture.width, top + band))
    return encode(piece.resize((width, height), Image.Resampling.LANCZOS), "JPEG", quality=90)


def stamped(picture: Image.Image, word: str, alpha: int, tiled: bool) -> bytes:
    """Return the picture under a stock agency's mark: white letters with a dark rim, `alpha` of 255, once or tiled and
    tilted."""
    layer = _tiles(picture.size, word, alpha) if tiled else _centred(picture.size, word, alpha)
    return encode(Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB"), "JPEG", quality=92)


def _centred(size: tuple[int, int], word: str, alpha: int) -> Image.Image:
    layer = Image.new("RGBA", size)
    font = ImageFont.load_default(size[0] * 1.5 / len(word))
    _write(ImageDraw.Draw(layer), (size[0] / 2, size[1] / 2), word, font, alpha)
    return layer


def _tiles(size: tuple[int, int], word: str, alpha: int) -> Image.Image:
    side = int((size[0] ** 2 + size[1] ** 2) ** 0.5)
    layer = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size[0] / 14)
    step_x, step_y = round(size[0] * 0.62), round(size[0] * 0.24)
    for row, y in enumerate(range(step_y // 2, side, step_y)):
        for x in range((row % 2) * step_x // 2, side + step_x, step_x):
            _write(draw, (x, y), word, font, alpha)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    return layer.rotate(TILT_DEGREES, Image.Resampling.BICUBIC).crop((left, top, left + size[0], top + size[1]))


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    word: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    alpha: int,
) -> None:
    draw.text(
        at, word, font=font, fill=(255, 255, 255, alpha), anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0, alpha // 3)
    )
