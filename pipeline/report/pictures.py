"""Make pictures small and put their bytes into the page itself: a report loads nothing from anywhere."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

PNG = b"\x89PNG"


@dataclass(frozen=True)
class Picture:
    """A picture of the page: the bytes of a PNG or JPEG, and the words that stand for it where it cannot be seen."""

    data: bytes
    words: str = ""

    @property
    def uri(self) -> str:
        """Return the picture as a `data:` address: base64 alone, so that nothing of it needs escaping."""
        kind = "png" if self.data.startswith(PNG) else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"


def shrunk(data: bytes, side: int) -> bytes:
    """Return a picture as a JPEG of at most `side` pixels on its long side; a smaller one keeps its size."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=84)
    return out.getvalue()
