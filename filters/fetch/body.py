"""Collect one response's body under a cap, on disk once it is large, decompressed if the server insisted."""

import tempfile
from collections.abc import Iterator

from filters.fetch.codings import CodingFault, Codings
from filters.fetch.digests import Digests, Hasher

IN_MEMORY = 1 << 20
"""Bytes of one body kept in memory; what is larger waits in a temporary file, so that memory does not grow with hostile
bodies."""


class BodyFault(Exception):
    """A body that is not taken. `reason`: too_large, incomplete_body, empty_body or bad_response."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Body:
    """A body while it arrives. Caps the bytes as sent and the bytes after decompression, each at `max_bytes`."""

    def __init__(self, max_bytes: int, encoding: str = "", held: bool = False) -> None:
        """`encoding`: the Content-Encoding header. `held`: all of it stays in memory, and no byte reaches a disk.
        Raises BodyFault for an encoding that cannot be undone."""
        self.max_bytes = max_bytes
        self.sent = self.size = 0
        try:
            self.codings = Codings(encoding, max_bytes)
        except CodingFault as fault:
            raise BodyFault(fault.reason, fault.detail) from fault
        self._hasher = Hasher()
        limit = 0 if held else IN_MEMORY  # 0: without one
        self._file = tempfile.SpooledTemporaryFile(max_size=limit)  # noqa: SIM115 -- take() or close() ends it

    def feed(self, data: bytes) -> None:
        """Take the next bytes as sent. Raises BodyFault over the cap or for a broken stream."""
        self.sent += len(data)
        if self.sent > self.max_bytes:
            raise BodyFault("too_large", f"more than {self.max_bytes} bytes sent")
        if self.codings:
            self._undo(self.codings.feed(data))
        else:
            self._write(data)

    def _undo(self, pieces: Iterator[bytes]) -> None:
        try:
            for piece in pieces:
                self._write(piece)
        except CodingFault as fault:
            raise BodyFault(fault.reason, f"{fault.detail}, {self.sent} bytes sent") from fault

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.max_bytes:
            raise BodyFault("too_large", f"more than {self.max_bytes} bytes after decompression")
        self._hasher.update(data)
        self._file.write(data)

    @property
    def digests(self) -> Digests:
        """Return the digests of the file that the body is: of its bytes after decompression, not as they were sent."""
        return self._hasher.digests()

    def end(self) -> None:
        """Say that all was sent. Raises BodyFault for nothing at all, or a compressed stream that stops early."""
        if self.codings:
            self._undo(self.codings.end())
        if not self.size:
            raise BodyFault("empty_body", "no bytes")

    def take(self) -> bytes:
        """Return the whole body and let go of it."""
        self._file.seek(0)
        with self._file:
            return self._file.read()

    def close(self) -> None:
        """Let go of the body."""
        self._file.close()
