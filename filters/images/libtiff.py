"""Take what libtiff says out of stderr, and tell from it which fax pictures are damaged.

Pillow leaves libtiff's own handlers in place, which print. Most of what they say is harmless (tags that nobody knows),
and where a decoder gives up Pillow says so. Of fax data alone it shows what came.
"""

import ctypes
import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filters.images.header import ImageFault

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
"""TIFFErrorHandler: the module that speaks, a format, and its values, which are not read."""
MOST = 200  # words kept of one picture
_told: list[str] = []


DAMAGED = re.compile(r"Fax\w*: (?:Bad code word|Uncompressed data)")


def fault_of(told: list[str]) -> ImageFault | None:
    """Return the fault of a picture of whose fax data libtiff has said this."""
    said = next(filter(DAMAGED.match, told), None)
    return ImageFault("corrupt", f"TIFF: {said}") if said else None


@contextmanager
def listening() -> Iterator[list[str]]:
    """Give the list that libtiff's errors and warnings go into; one picture at a time.

    Where Pillow's libtiff cannot be reached it stays empty, and they go to stderr.
    """
    _listen()
    _told.clear()
    yield _told


@functools.cache
def _listen() -> Any:
    """Set the handlers of the libtiff that Pillow brings, once, and return what must outlive them."""
    from PIL import _imaging

    try:
        library = ctypes.CDLL(_imaging.__file__)  # a lookup in it reaches the libraries that it was linked with
        set_errors, set_warnings = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (AttributeError, OSError):
        return None
    handler = HANDLER(_note)
    for setter in (set_errors, set_warnings):
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(ctypes.cast(handler, ctypes.c_void_p))
    return handler


def _note(module: bytes | None, text: bytes | None, _: object) -> None:
    if len(_told) < MOST:
        said = (text or b"").partition(b"%")[0].rstrip(b" (")  # without the values
        _told.append(f"{(module or b'').decode('latin-1')}: {said.decode('latin-1')}")
