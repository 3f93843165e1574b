"""Write pictures as numbered PNGs, and tell how many of them are there already."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from manifests.files import writing

DIGITS = 5

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pngs:
    """`count` pictures of a folder, by number."""

    folder: Path
    count: int

    def path(self, number: int) -> Path:
        """Return the file of a picture: 00000.png, …, with as many digits as the last one needs."""
        return self.folder / f"{number:0{max(DIGITS, len(str(self.count - 1)))}d}.png"

    @property
    def pictures(self) -> int:
        """Return how many there are before the first that is missing."""
        return next((number for number in range(self.count) if not self.path(number).is_file()), self.count)

    def add(self, first: int, pixels_BHWC: Pixels) -> None:
        """Write pictures, picture number `first` on, each by temporary name and rename. Raises OSError."""
        for number, pixels_HWC in enumerate(pixels_BHWC, first):
            with writing(self.path(number)) as temporary:
                Image.fromarray(pixels_HWC).save(temporary, format="PNG")

    def read(self, number: int) -> Pixels:
        """Return a picture that is there, uint8 (H, W, 3)."""
        with Image.open(self.path(number)) as image:
            return np.asarray(image)

    def finish(self) -> None:
        """Do nothing: each picture is whole."""
