"""Make pictures that hold a C2PA manifest: signed ones by c2pa-python, and the bytes of an assertion alone."""

import datetime
import functools
import io
import json
import struct
import zlib
from typing import Any

from PIL import Image

from tests.support.picture_files import corners

MIMES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
CREATED = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
}


def assertion(use: str = "notAllowed", label: str = "cawg.training-mining", **entries: str) -> dict[str, Any]:
    """Return an assertion of one entry, or of the named ones."""
    uses = entries or {"ai_training": use}
    return {"label": label, "data": {"entries": {f"{label[:4]}.{name}": {"use": one} for name, one in uses.items()}}}


def signed(format_: str, *assertions: dict[str, Any], parent: bytes = b"") -> bytes:
    """Return a picture with a manifest, signed with keys that nobody trusts. `parent`: a picture that is part of it."""
    import c2pa

    said = [{"label": "c2pa.actions", "data": {"actions": [CREATED]}}, *assertions]
    builder = c2pa.Builder(json.dumps({"title": "t", "format": MIMES[format_], "assertions": said}))
    if parent:
        builder.add_ingredient(
            json.dumps({"title": "p", "relationship": "componentOf"}), MIMES[format_], io.BytesIO(parent)
        )
    source, out = io.BytesIO(), io.BytesIO()
    corners().save(source, format_)
    source.seek(0)
    builder.sign(_signer(), MIMES[format_], source, out)
    return out.getvalue()


@functools.cache
def _signer() -> Any:
    import c2pa
    from cryptography.hazmat.primitives import serialization as to

    root_key, root = _certificate("root", None, None)
    key, leaf = _certificate("leaf", root, root_key)
    chain = b"".join(one.public_bytes(to.Encoding.PEM) for one in (leaf, root))
    secret = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, secret, None))


def _certificate(name: str, issuer: Any, issuer_key: Any) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key, is_root = ec.generate_private_key(ec.SECP256R1()), issuer is None
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test")]
    )
    by = issuer_key or key
    usage = x509.KeyUsage(True, False, False, False, False, is_root, is_root, False, False)
    made = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject if is_root else issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2025, 1, 1))
        .not_valid_after(datetime.datetime(2045, 1, 1))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_root:
        made = made.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return key, made.sign(by, hashes.SHA256())


def cbor(**uses: str) -> bytes:
    """Return the CBOR of an assertion's entries: name -> use."""

    def text(value: str) -> bytes:
        return bytes([0x60 + len(value)] if len(value) < 24 else [0x78, len(value)]) + value.encode()

    entries = b"".join(text(f"cawg.{name}") + b"\xa1" + text("use") + text(use) for name, use in uses.items())
    return b"\xa1" + text("entries") + bytes([0xA0 + len(uses)]) + entries


def box(kind: bytes, body: bytes) -> bytes:
    """Return a box of JUMBF."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def manifest(content: bytes, label: str = "cawg.training-mining", kind: bytes = b"cbor") -> bytes:
    """Return the boxes of one assertion, without claim and signature: no reader of C2PA takes them for a manifest."""
    described = box(b"jumd", kind + bytes(12) + b"\x13" + label.encode() + b"\0")
    return box(b"jumb", described + box(kind, content))


def jpeg_in_segments(boxes: bytes, size: int) -> bytes:
    """Return a JPEG that holds boxes cut into APP11 segments of `size` bytes."""
    buffer = io.BytesIO()
    corners().save(buffer, "JPEG")
    plain, segments = buffer.getvalue(), []
    for number, at in enumerate(range(0, len(boxes), size), 1):
        again = boxes[:8] if number > 1 else b""
        body = b"JP\0\1" + struct.pack(">I", number) + again + boxes[at : at + size]
        segments.append(b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body)
    return plain[:2] + b"".join(segments) + plain[2:]


def png_with_boxes(boxes: bytes) -> bytes:
    """Return a PNG that holds boxes in a caBX chunk."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    plain, chunk = buffer.getvalue(), b"caBX" + boxes
    return plain[:33] + struct.pack(">I", len(boxes)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
