"""Repair the header of an answer before aiohttp's strict parser reads it, as browsers do; docs/http.md has the list.

What only looks wrong is put right. What leaves open where the body ends is refused: two readers could take one stream
of bytes for different answers.
"""

import re

MOST_BYTES = 1 << 16
"""Bytes of a header that are held back for repair; a longer one goes to the parser as it is, and that has its own
limits."""
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
PLAIN = re.compile(
    rb"HTTP/1\.[01] [1-9]\d\d [\t -~]*\r\n(?:(?!(?i:transfer-encoding))" + TOKEN + rb":[\t -~]*\r\n)*\r\n"
)
"""A header that needs no repair, as long as it has one Content-Length at most."""
LENGTH = re.compile(rb"\n(?i:content-length):(?:[ \t]*(\d{1,19})[ \t]*\r)?")
NAME = re.compile(TOKEN)
STATUS = re.compile(rb"HTTP/(\d+(?:\.\d+)?)[ \t]+(\d{3})(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)
END = re.compile(rb"\n\r*\n")
FRAMING = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive")


class HeaderFault(Exception):
    """A header that leaves open how it is meant."""


def end_of(head: bytes | bytearray, start: int = 0) -> int:
    """Return the length of the header at the beginning of `head`, -1 where it is not whole yet. `start`: where to look
    from."""
    found = END.search(head, max(0, start - 4))
    return found.end() if found else -1


def is_http(head: bytes | bytearray) -> bool:
    """Say whether what came so far may become an answer's header."""
    begun = bytes(head[:64]).lstrip(b"\r\n")[:5].upper()
    return b"HTTP/".startswith(begun)


def repaired(head: bytes) -> bytes:
    """Return a whole header, blank line included, in the form of RFC 9112. Raises HeaderFault."""
    if PLAIN.fullmatch(head):
        lengths = LENGTH.findall(head)
        if not lengths or (len(lengths) == 1 and lengths[0]):
            return head
    first, *lines = _lines(head)
    status = STATUS.fullmatch(first)
    if status is None:
        return head  # the parser says what is wrong with it
    if status[2] < b"100":
        raise HeaderFault(f"status {status[2].decode()}")
    fields = [field for field in map(_field, lines) if field]
    version = b"HTTP/1.0" if status[1] in (b"1.0", b"0.9") else b"HTTP/1.1"
    made = [b"%s %s %s" % (version, status[2], _printable(status[3] or b"")), *_framing(fields)]
    made += [b"%s: %s" % field for field in fields if field[0].lower() not in FRAMING]
    return b"\r\n".join((*made, b"", b""))


def _lines(head: bytes) -> list[bytes]:
    """Return the lines, folded ones joined. Raises HeaderFault for a NUL."""
    if b"\0" in head:
        raise HeaderFault("a NUL in the header")
    lines: list[bytes] = []
    for line in head.lstrip(b"\r\n").split(b"\n"):
        text = line.rstrip(b"\r")
        if text[:1] in (b" ", b"\t"):
            if len(lines) > 1:  # what is folded behind the status line belongs to nothing
                lines[-1] += b" " + text.strip(b" \t")
        elif text:
            lines.append(text)
    return lines or [b""]


def _field(line: bytes) -> tuple[bytes, bytes] | None:
    """Return (name, value) of a line, None for one that browsers pass over: no colon, or no name before it."""
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t")
    return (name, value.strip(b" \t").replace(b"\r", b" ")) if colon and NAME.fullmatch(name) else None


def _printable(text: bytes) -> bytes:
    return bytes(octet if octet >= 0x20 and octet != 0x7F else 0x20 for octet in text)


def _framing(fields: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the lines that say where the body ends and whether the connection goes on. Raises HeaderFault."""
    said = {name: [value for key, value in fields if key.lower() == name] for name in FRAMING}
    length, codings = _length(said[b"content-length"]), _codings(said[b"transfer-encoding"])
    lines = [b"Connection: " + value for value in said[b"connection"]]
    if codings and codings != [b"chunked"]:
        raise HeaderFault(f"Transfer-Encoding {b', '.join(codings)[:60]!r}")
    if codings:
        # The chunks count where a length is named too (RFC 9112, 6.3), and nothing more is taken from the connection.
        return [b"Transfer-Encoding: chunked", *(lines if length is None else [b"Connection: close"])]
    return lines if length is None else [b"Content-Length: %d" % length, *lines]


def _length(values: list[bytes]) -> int | None:
    """Return the one length that is named, once or more often. Raises HeaderFault for two, or for no number."""
    named = {text.strip(b" \t") for value in values if value for text in value.split(b",")}
    if not all(text.isdigit() and len(text) < 20 for text in named):
        raise HeaderFault(f"Content-Length {b', '.join(sorted(named))[:60]!r}")
    lengths = {int(text) for text in named}
    if len(lengths) > 1:
        raise HeaderFault(f"two values of Content-Length: {sorted(lengths)[:2]}")
    return lengths.pop() if lengths else None


def _codings(values: list[bytes]) -> list[bytes]:
    """Return the transfer codings, `identity` left out and `chunked` once."""
    names = [text.strip(b" \t").lower() for value in values for text in value.split(b",")]
    return list(dict.fromkeys(name for name in names if name and name != b"identity"))
