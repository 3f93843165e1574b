"""Watch how large pictures become when they are scaled."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

EXTREME = [(1, 12_000), (12_000, 1), (65_500, 1), (3, 65_500)]
"""Sizes of pictures that grow to hundreds of millions of pixels when their short side is scaled to a model's."""


@contextmanager
def largest_resize() -> Iterator[list[int]]:
    """Yield a list that gets, for each picture that Pillow scales meanwhile, the pixels of what it makes of it, with
    what stands between its two passes."""
    seen: list[int] = []
    own = Image.Image.resize

    def watched(self: Image.Image, size: Any, *args: Any, **options: Any) -> Image.Image:
        seen.append(max(size[0] * size[1], size[0] * self.height))
        return own(self, size, *args, **options)

    Image.Image.resize = watched  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Image.Image.resize = own  # type: ignore[method-assign]
