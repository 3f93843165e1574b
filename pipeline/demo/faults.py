"""List the faults that the demo plants in addresses, answers and bodies, with the reason the design names for each."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

DOMAIN = "demo.test"
"""Made-up hosts end in a top-level domain that RFC 6761 keeps out of the real DNS."""
TOO_LARGE_BYTES = 6_000_000
"""What host `huge` sends; the demo's recipe caps bodies at 5 MB."""


def host(name: str) -> str:
    """Return the made-up host of a picture source or a kind of fault."""
    return f"{name}.{DOMAIN}"


@dataclass(frozen=True)
class Fault:
    """One kind of fault: the rows' URLs (None = a null in the table) and the reason that each must get."""

    kind: str
    reason: str
    urls: tuple[str | None, ...]


def _served(kind: str, reason: str, *paths: str, scheme: str = "http") -> Fault:
    return Fault(kind, reason, tuple(f"{scheme}://{host(kind)}/{path}" for path in paths))


FAULTS: tuple[Fault, ...] = (
    Fault("bad-url", "bad_url", (None, "", "not a URL", "/pictures/cat.jpg", "http://")),
    Fault(
        "blocked-scheme",
        "blocked_scheme",
        ("file:///etc/passwd", f"ftp://{host('ftp')}/cat.jpg", "gopher://example.org/cat.gif"),
    ),
    Fault(
        "private-address",
        "blocked_address",
        ("http://10.0.0.1/cat.jpg", "http://169.254.169.254/latest/cat.jpg", "http://[::1]/cat.jpg"),
    ),
    Fault("dns", "dns", ("http://nowhere.invalid/cat.jpg", "http://no-such-host.invalid/dog.jpg")),
    _served("refused", "connection", "cat.jpg", "dog.jpg"),
    _served("reset", "connection", "cat.jpg", "dog.jpg"),
    _served("tls", "tls", "cat.jpg", "dog.jpg", scheme="https"),
    _served("timeout", "timeout", "silent.jpg", "slow-header.jpg", "trickle.jpg"),
    _served("garbage", "bad_response", "cat.jpg", "dog.jpg"),
    _served("http-404", "http_404", "cat.jpg", "dog.jpg", "bird.jpg"),
    _served("http-410", "http_410", "cat.jpg", "dog.jpg"),
    _served("http-503", "http_503", "cat.jpg"),
    _served("redirect-loop", "too_many_redirects", "here.jpg", "step/0.jpg"),
    _served("redirect-private", "blocked_address", "router.jpg", "metadata.jpg"),
    _served("huge", "too_large", "announced.jpg", "endless.jpg"),
    _served("short-body", "incomplete_body", "cat.jpg", "dog.jpg"),
    _served("empty-body", "empty_body", "cat.jpg", "dog.jpg"),
    _served("not-an-image", "not_an_image", "page.jpg", "drawing.jpg", "answer.png"),
    _served("bomb", "too_many_pixels", "bomb.png", "bomb.gif"),
    _served("animated", "animated", "turning.gif", "turning.webp"),
    _served("truncated", "truncated", "half.jpg", "half.png"),
    _served("corrupt", "corrupt", "noise.png", "noise-2.png"),
)

CAPTIONS: tuple[str, ...] = (
    "A red bicycle leaning against a brick wall in the morning",
    "Two children are flying a kite on the beach",
    "A bowl of fresh strawberries on a wooden table",
    "An old lighthouse standing on a rocky coast",
    "The black cat is sleeping on a warm windowsill",
    "A busy market street with fruit and flowers",
    "A small wooden boat on a quiet lake in autumn",
    "The dog is running through the snow with a stick",
    "A cup of coffee and a newspaper on the kitchen table",
    "A tall green tree in the middle of an open field",
    "An empty train platform late in the evening",
    "The bridge over the river is covered in fog",
    "A white horse is grazing behind a wooden fence",
)
"""Alt texts of rows whose picture never arrives: plain English, so that nothing but the planted fault can drop them."""


def served_kinds() -> tuple[str, ...]:
    """Return the kinds whose host the demo's server plays."""
    return tuple(fault.kind for fault in FAULTS if any(url and host(fault.kind) in url for url in fault.urls))


def bodies(picture: Image.Image) -> dict[str, bytes]:
    """Return `host/path` -> bytes of the faulty files, made from one RGB picture."""
    jpeg, png = encode(picture, "JPEG", quality=90), encode(picture, "PNG")
    makers: dict[str, Callable[[], bytes]] = {
        "not-an-image/page.jpg": lambda: (
            b"<!DOCTYPE html><html><title>Sign in</title><body>Please sign in to see this picture.</body></html>"
        ),
        "not-an-image/drawing.jpg": lambda: (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400"><circle r="90"/></svg>'
        ),
        "not-an-image/answer.png": lambda: b'{"error": "hotlinking is not allowed", "code": 1011}',
        "bomb/bomb.png": lambda: _png(60_000, 60_000, zlib.compress(bytes(1000))),
        "bomb/bomb.gif": lambda: b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + encode(picture, "GIF")[10:],
        "animated/turning.gif": lambda: _turning(picture, "GIF"),
        "animated/turning.webp": lambda: _turning(picture, "WEBP"),
        "truncated/half.jpg": lambda: jpeg[: len(jpeg) * 6 // 10],
        "truncated/half.png": lambda: png[: len(png) // 2],
        "corrupt/noise.png": lambda: _png(320, 320, bytes(range(256)) * 40),
        "corrupt/noise-2.png": lambda: _png(400, 300, b"\x78\x9c" + b"\xff" * 4000),
        "short-body/cat.jpg": lambda: jpeg,
        "short-body/dog.jpg": lambda: jpeg[::-1],
        "huge/announced.jpg": lambda: jpeg,
        "huge/endless.jpg": lambda: jpeg,
    }
    return {f"{host(name.split('/')[0])}/{name.split('/')[1]}": make() for name, make in makers.items()}


def encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    """Return a picture as file bytes of a Pillow format."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _png(width: int, height: int, data: bytes) -> bytes:
    """Return a PNG of 8-bit RGB whose header claims a size and whose pixel stream is `data`, all checksums right."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _turning(picture: Image.Image, kind: str) -> bytes:
    frames = [picture.resize((96, 96)).rotate(angle) for angle in (0, 120, 240)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=200, loop=0)
    return out.getvalue()
