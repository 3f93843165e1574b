"""Make pictures that hold an XMP packet, in every format and in every place where it may stand."""

import io
import struct
import zlib

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.picture_files import corners

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
SPACES = {
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "iptc": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "tdm": "http://www.w3.org/ns/tdmrep/",
    "cawg": "https://cawg.io/ns/",
    "dc": "http://purl.org/dc/elements/1.1/",
}
VOCAB = "http://ns.useplus.org/ldf/vocab/"


def packet(body: str = "", attributes: str = "", head: str = "") -> bytes:
    """Return an XMP packet whose one description holds this body and these attributes."""
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in SPACES.items())
    return (
        f'{head}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}><rdf:Description rdf:about="" {spaces}'
        f" {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def refusing(value: str = "DMI-PROHIBITED-AIMLTRAINING") -> bytes:
    """Return a packet whose plus:DataMining has this value."""
    return packet(f"<plus:DataMining>{VOCAB}{value}</plus:DataMining>")


def _saved(format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    corners().save(buffer, format_, **options)
    return buffer.getvalue()


def jpeg_with(*segments: bytes) -> bytes:
    """Return a JPEG with these APP1 bodies before its tables."""
    plain = _saved("JPEG", quality=90)
    app1 = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in segments)
    return plain[:2] + app1 + plain[2:]


def standard(xmp: bytes) -> bytes:
    """Return the body of the APP1 segment that holds a packet."""
    return b"http://ns.adobe.com/xap/1.0/\0" + xmp


def extended(xmp: bytes, at: int, whole: int) -> bytes:
    """Return the body of an APP1 segment that holds a piece of an extended packet."""
    return b"http://ns.adobe.com/xmp/extension/\0" + b"0123456789ABCDEF" * 2 + struct.pack(">II", whole, at) + xmp


def jpeg_in_pieces(xmp: bytes, size: int = 100) -> bytes:
    """Return a JPEG whose extended packet lies in pieces of `size` bytes, the last one first."""
    pieces = [extended(xmp[at : at + size], at, len(xmp)) for at in range(0, len(xmp), size)]
    return jpeg_with(standard(packet()), *reversed(pieces))


def png_with(kind: bytes, body: bytes) -> bytes:
    """Return a PNG with one chunk behind its header."""
    plain = _saved("PNG")
    chunk = kind + body
    return plain[:33] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]


def png(xmp: bytes, packed: bool = False) -> bytes:
    """Return a PNG whose iTXt chunk holds a packet."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=packed)
    return _saved("PNG", pnginfo=info)


def png_in_hex(xmp: bytes) -> bytes:
    """Return a PNG with a packet in hexadecimal digits and compressed, as ImageMagick writes it."""
    text = b"\nxmp\n%8d\n" % len(xmp) + b"\n".join(
        xmp.hex()[at : at + 72].encode() for at in range(0, 2 * len(xmp), 72)
    )
    return png_with(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(text + b"\n"))


def tiff(xmp: bytes) -> bytes:
    """Return a TIFF whose tag 700 holds a packet."""
    return _saved("TIFF", tiffinfo={700: xmp})


def gif(xmp: bytes) -> bytes:
    """Return a GIF with a packet in an application extension, which ends as the XMP specification says."""
    plain = _saved("GIF")
    at = plain.index(b"\x2c", 13)
    magic = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return plain[:at] + b"\x21\xff\x0bXMP DataXMP" + xmp + magic + plain[at:]


def files_with(xmp: bytes) -> dict[str, bytes]:
    """Return place -> a picture that holds the packet there."""
    return {
        "jpeg": jpeg_with(standard(xmp)),
        "jpeg extended": jpeg_in_pieces(xmp),
        "jpeg comment": _saved("JPEG", comment=xmp),
        "png": png(xmp),
        "png compressed": png(xmp, packed=True),
        "png hex": png_in_hex(xmp),
        "webp": _saved("WEBP", xmp=xmp),
        "tiff": tiff(xmp),
        "gif": gif(xmp),
        "avif": _saved("AVIF", xmp=xmp),
    }


def is_picture(data: bytes) -> bool:
    """Tell whether Pillow opens and decodes it."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
    return True
