"""Read a chunked body as browsers do, and write it anew in the one form that aiohttp's parser takes."""

import re

MOST_LINE = 4096  # bytes of a chunk's size and what stands behind it
MOST_TRAILERS = 1 << 14  # bytes of the fields after the last chunk, which are passed over
SIZE = re.compile(rb"[ \t]*0*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r*", re.DOTALL)
LAST = b"0\r\n\r\n"


class ChunkFault(Exception):
    """A chunk whose size cannot be read, or that does not end where it says."""


class Chunks:
    """One chunked body while it arrives."""

    def __init__(self) -> None:
        self.line = b""
        """What came of a line."""
        self.left = 0
        """Bytes of the chunk that are still to come."""
        self.place = self._size
        self.done = False
        self.over = False
        """Whether bytes came after the end of the body."""
        self.trailers = 0

    def feed(self, data: bytes) -> bytes:
        """Return what came, in its one form; what stands after the body is passed over. Raises ChunkFault."""
        made: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            at = self._data(data, at, made) if self.left else self._line(data, at, made)
        self.over |= at < len(data)
        return b"".join(made)

    def end(self) -> bytes:
        """Return what is to be added where the connection ended: the rest of an end that was begun by a chunk of no
        bytes."""
        if self.done or self.left:
            return b""
        match = SIZE.fullmatch(self.line) if self.place == self._size else None
        return LAST if self.place == self._trailer or (match is not None and not int(match[1], 16)) else b""

    def _data(self, data: bytes, at: int, made: list[bytes]) -> int:
        piece = data[at : at + self.left]
        made += [b"%x\r\n" % len(piece), piece, b"\r\n"]
        self.left -= len(piece)
        return at + len(piece)

    def _line(self, data: bytes, at: int, made: list[bytes]) -> int:
        """Take up to the next line end, and what a whole line says."""
        end = data.find(b"\n", at)
        self.line += data[at : end if end >= 0 else None]
        if len(self.line) > MOST_LINE:
            raise ChunkFault(f"a line of more than {MOST_LINE} bytes between chunks")
        if end < 0:
            return len(data)
        line, self.line = self.line, b""
        made.append(self.place(line))
        return end + 1

    def _size(self, line: bytes) -> bytes:
        match = SIZE.fullmatch(line)
        if match is None:
            raise ChunkFault(f"{line[:60]!r} for the size of a chunk")
        self.left = int(match[1], 16)
        self.place = self._gap if self.left else self._trailer
        return b""

    def _gap(self, line: bytes) -> bytes:
        if line.strip(b"\r"):
            raise ChunkFault(f"{line[:60]!r} at the end of a chunk")
        self.place = self._size
        return b""

    def _trailer(self, line: bytes) -> bytes:
        self.trailers += len(line) + 1
        if self.trailers > MOST_TRAILERS:
            raise ChunkFault(f"more than {MOST_TRAILERS} bytes of fields after the last chunk")
        self.done = not line.strip(b"\r")
        return LAST if self.done else b""
