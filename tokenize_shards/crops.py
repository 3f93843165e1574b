"""Cut a picture into the crops whose codes are stored: the centre, its mirror image, or ten crops at each scale."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from filters.images.scaled import Scaled
from tokenize_shards.images import middle, scale_to

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right", "center")
MIRRORED = {
    "top_left": "top_right",
    "top_right": "top_left",
    "bottom_left": "bottom_right",
    "bottom_right": "bottom_left",
}


@dataclass(frozen=True)
class Crop:
    """Where one code array comes from: `box` (left, top, right, bottom) cut out of the picture scaled to `scaled`
    (width, height), in pixels, then mirrored where `flip`. `scale` is the short side of the scaled square over the
    crop's side."""

    place: str
    scale: float
    scaled: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool

    def note(self) -> dict[str, Any]:
        """Return the crop as plain values for Parquet and JSON."""
        return {
            "place": self.place,
            "scale": self.scale,
            "scaled": list(self.scaled),
            "box": list(self.box),
            "flip": self.flip,
        }


@dataclass(frozen=True)
class CropPlan:
    """Which crops every picture gets. `flip` adds the centre crop's mirror image; ten-crops hold theirs already."""

    crop: Literal["center", "ten"] = "center"
    scales: tuple[float, ...] = (1.1,)
    flip: bool = False

    @property
    def label(self) -> str:
        """Return the plan's short name: "center", "center+flip", "ten_1.05+ten_1.1"."""
        if self.crop == "ten":
            return "+".join(f"ten_{scale:g}" for scale in self.scales)
        return "center+flip" if self.flip else "center"

    @property
    def count(self) -> int:
        """Return the number of crops of a picture."""
        return 10 * len(self.scales) if self.crop == "ten" else 1 + self.flip


def crops_of(image: Image.Image, size: int, plan: CropPlan) -> Iterator[tuple[Crop, Image.Image]]:
    """Yield each crop and its pixels, `size` a side, in a fixed order.

    Center: ADM's centre crop, then its mirror image (LlamaGen's two codes of an ImageNet picture). Ten: for each scale
    s the ADM centre crop of int(size * s), of which the four corners and the centre, then the same five of its mirror
    image: torchvision's TenCrop, as LlamaGen's extractor uses it (extract_codes_c2i.py).
    """
    if plan.crop == "center":
        scaled = scale_to(image, size)
        found = [("center", middle(scaled, size), False), ("center", middle(scaled, size), True)]
        yield from (_cut(scaled, 1.0, *crop) for crop in found[: plan.count])
        return
    for scale in plan.scales:
        side = int(size * scale)
        scaled = scale_to(image, side)
        yield from (_cut(scaled, scale, *crop) for crop in _ten(middle(scaled, side), side, size))


def _ten(
    square: tuple[int, int, int, int], side: int, size: int
) -> Iterator[tuple[str, tuple[int, int, int, int], bool]]:
    """Yield (place, box, flip) of ten crops inside a square; a box of the mirror image is given where it lies in the
    picture itself."""
    far, half = side - size, round((side - size) / 2.0)
    inside = dict(zip(CORNERS, ((0, 0), (far, 0), (0, far), (far, far), (half, half)), strict=True))
    for flip in (False, True):
        for place, (left, top) in inside.items():
            x = square[0] + (side - size - left if flip else left)
            y = square[1] + top
            yield MIRRORED.get(place, place) if flip else place, (x, y, x + size, y + size), flip


def _cut(
    scaled: Scaled, scale: float, place: str, box: tuple[int, int, int, int], flip: bool
) -> tuple[Crop, Image.Image]:
    pixels = scaled.crop(box)
    if flip:
        pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Crop(place, scale, scaled.size, box, flip), pixels
