"""Read a site's own files whatever they were packed in and written in: a rule that cannot be read would be passed by.

Servers send robots.txt as the gzip file that lies on their disk, name codings that they have not applied, and write
UTF-16. What came is unpacked within a bound and becomes text.
"""

import re
from collections.abc import Iterator

from filters.fetch.codings import GZIP_START, MOST_CODINGS, ZSTD_START, CodingFault, Codings

LOOKED_AT = 4096  # bytes that tell in which encoding a text is, and whether it is one
MANY = 4
"""A text in UTF-16 has a NUL in every second byte; so many times more on one side than on the other are its sign."""
CONTROLS = re.compile("[\x01-\x08\x0e-\x1f\x7f\udc80-\udcff\ufffd]")
MARKS = str.maketrans("", "", "\0\ufeff\u200b")
"""What changes no rule: padding, and marks of the order of bytes where files were joined."""
ROOM = 4 << 20  # bytes above the bound that one step may make: 64 bytes of zstd stand for 2 MiB
UNMARKED = ("br", "deflate")
"""Codings whose streams begin as they like: they are tried on what is no text."""


def unpacked(raw: bytes, header: str, most: int) -> bytes:
    """Return what a site's file holds, of a coded one at most `most` + 1 bytes.

    `raw`: the body as sent, where it is longer than `most` cut above that. `header`: its Content-Encoding, which may be
    wrong. Raises CodingFault: incomplete_body for a stream that ends early, bad_response where a coding was named that
    nothing here undoes and the bytes are no text.
    """
    data, wrong = raw, None
    try:
        data = _undone(raw, header, most)
    except CodingFault as fault:
        # some gzip files begin as a brotli stream does that goes on: the name is wrong there too
        if fault.reason != "bad_response" and not (GZIP_START.match(raw) or ZSTD_START.match(raw)):
            raise
        wrong = fault
    for _ in range(MOST_CODINGS):
        inner = _once(data, most)
        if inner is None:
            break
        data = inner
    if wrong is not None and not is_text(data):
        raise wrong
    return data


def text_of(data: bytes) -> str:
    """Return a site's file as text: UTF-16 or UTF-32 where it begins or looks as these do, else UTF-8, its other bytes
    as surrogates."""
    return data.decode(*_encoding(data)).translate(MARKS)


def is_text(data: bytes) -> bool:
    """Say whether bytes are text: their first ones hold no control characters, and fit an encoding."""
    start = data[:LOOKED_AT].decode(*_encoding(data))
    return CONTROLS.search(start[:-4] if len(data) > LOOKED_AT else start) is None


def _encoding(data: bytes) -> tuple[str, str]:
    """Return the encoding and what is done with bytes that are none of it."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32", "replace"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", "replace"
    start = data[:LOOKED_AT]
    first, second = start[::2].count(0), start[1::2].count(0)
    if max(first, second) * MANY > len(start) and max(first, second) > MANY * min(first, second):
        return "utf-16-be" if first > second else "utf-16-le", "replace"
    return "utf-8", "surrogateescape"


def _once(data: bytes, most: int) -> bytes | None:
    """Return what one more packing holds that no header named, None where there is none."""
    if GZIP_START.match(data):
        return _undone(data, "gzip", most)
    if ZSTD_START.match(data):
        return _undone(data, "zstd", most)
    for name in () if is_text(data) else UNMARKED:
        try:
            inner = _undone(data, name, most)
        except CodingFault:
            continue
        if inner and is_text(inner):
            return inner
    return None


def _undone(data: bytes, header: str, most: int) -> bytes:
    """Return what coded bytes stand for, at most one above `most`. Raises CodingFault."""
    codings, parts, size = Codings(header, most + ROOM), list[bytes](), 0
    if not codings:
        return data
    try:
        for piece in _pieces(codings, data):
            parts.append(piece)
            size += len(piece)
            if size > most:
                break
    except CodingFault as fault:
        if fault.reason != "too_large" and not (fault.reason == "incomplete_body" and len(data) > most):
            raise
    return b"".join(parts)[: most + 1]


def _pieces(codings: Codings, data: bytes) -> Iterator[bytes]:
    yield from codings.feed(data)
    yield from codings.end()
