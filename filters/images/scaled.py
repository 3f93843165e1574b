"""Cut boxes out of a picture that is scaled, without scaling what lies outside where that would be monstrous."""

import math
from dataclasses import dataclass, field

from PIL import Image

MOST_PIXELS = 1 << 24
"""Pixels of a scaled picture above which only the box is made. A side of 1,024 pixels stays below it up to an aspect of
16; a column of 1 x 12,000 pixels would come to 786 million at a side of 512."""
BICUBIC = Image.Resampling.BICUBIC
SUPPORT = {Image.Resampling.BILINEAR: 1, BICUBIC: 2, Image.Resampling.LANCZOS: 3}
"""Pixels that a filter looks at on either side, of the source or of the result, whichever is coarser."""

Box = tuple[int, int, int, int]


@dataclass
class Scaled:
    """A picture as it is when scaled to `size` (width, height), of which boxes are asked for.

    Boxes of a picture that is scaled as a whole are cut from it. Where that would have more than MOST_PIXELS, a box is
    made from the part of the picture that lies under it and the filter's margin: the same pixels, to a level of 255.
    """

    picture: Image.Image
    size: tuple[int, int]
    filter: Image.Resampling = BICUBIC
    _whole: Image.Image | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Return the scaled picture's width in pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Return the scaled picture's height in pixels."""
        return self.size[1]

    @property
    def is_monstrous(self) -> bool:
        """Say whether the whole scaled picture is never made."""
        return is_monstrous(self.picture.size, self.size)

    def crop(self, box: Box) -> Image.Image:
        """Return a box (left, top, right, bottom) of the scaled picture; it must lie inside where that is
        monstrous."""
        if self.is_monstrous:
            return self._part(box)
        if self._whole is None:
            self._whole = self.picture.resize(self.size, self.filter)
        return self._whole.crop(box)

    def _part(self, box: Box) -> Image.Image:
        left, right, x = _under(self.picture.width, self.width, (box[0], box[2]), SUPPORT[self.filter])
        top, bottom, y = _under(self.picture.height, self.height, (box[1], box[3]), SUPPORT[self.filter])
        part = self.picture.crop((left, top, right, bottom))
        return part.resize((box[2] - box[0], box[3] - box[1]), self.filter, box=(x[0], y[0], x[1], y[1]))


def is_monstrous(size: tuple[int, int], scaled: tuple[int, int]) -> bool:
    """Say whether a scaled picture, or what stands between its two passes, has more than MOST_PIXELS and more than the
    picture."""
    largest = max(scaled[0] * scaled[1], scaled[0] * size[1])
    return largest > max(MOST_PIXELS, size[0] * size[1])


def middle_of_short_side(picture: Image.Image, short: int, crop: int, filter_: Image.Resampling) -> Image.Image:
    """Return a picture whose middle square of `crop` pixels, its short side scaled to `short`, is that of `picture`.

    For models whose own preprocessing scales the short side, the long one cut to whole pixels, and then cuts the
    middle: a picture that would grow monstrous on the way comes back as the square of `short` pixels around the
    middle, with which that preprocessing has nothing to scale. Any other comes back as it is.
    """
    width, height = picture.size
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if not is_monstrous(picture.size, size) or crop > short:
        return picture
    inner = round((short - crop) / 2.0)
    left, top = (round((side - crop) / 2.0) - inner for side in size)
    return Scaled(picture, size, filter_).crop((left, top, left + short, top + short))


def _under(source: int, scaled: int, edges: tuple[int, int], support: int) -> tuple[int, int, tuple[float, float]]:
    """Return (first and last pixel of the source under a range of the scaled picture with the filter's margin, the
    range in pixels of that part)."""
    step = source / scaled
    margin = math.ceil(support * max(1.0, step)) + 1
    first = max(0, math.floor(edges[0] * step) - margin)
    last = min(source, math.ceil(edges[1] * step) + margin)
    return first, last, (edges[0] * step - first, min(edges[1] * step - first, last - first))
