"""Collect one response's body under a cap, on disk once it is large, decompressed if the server insisted."""

import tempfile
import zlib

IN_MEMORY = 1 << 20
"""Bytes of one body kept in memory; what is larger waits in a temporary file, so that memory does not grow with hostile
bodies."""
STEP = 1 << 16  # bytes that one decompression step may make
PLAIN = {"", "identity", "none"}
GZIP = {"gzip", "x-gzip"}
OTHER = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}


class BodyFault(Exception):
    """A body that is not taken. `reason`: too_large, incomplete_body, empty_body or bad_response."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Body:
    """A body while it arrives. Caps the bytes as sent and the bytes after decompression, each at `max_bytes`."""

    def __init__(self, max_bytes: int, encoding: str = "") -> None:
        """`encoding`: the Content-Encoding header. Raises BodyFault for one that cannot be undone."""
        self.max_bytes = max_bytes
        self.sent = self.size = 0
        self.encoding = encoding.strip().lower()
        if self.encoding in OTHER or "," in self.encoding:
            raise BodyFault(
                "bad_response", f"Content-Encoding {self.encoding[:60]!r}, though only identity was asked for"
            )
        # Names that are no coding ("utf-8", "binary", "aws-chunked" on stored objects) are common mistakes: the bytes
        # are plain.
        self.coded = self.encoding in GZIP or self.encoding == "deflate"
        self._inflate: zlib._Decompress | None = None
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 -- take() or close() ends it

    def feed(self, data: bytes) -> None:
        """Take the next bytes as sent. Raises BodyFault over the cap or for a broken stream."""
        self.sent += len(data)
        if self.sent > self.max_bytes:
            raise BodyFault("too_large", f"more than {self.max_bytes} bytes sent")
        if not self.coded:
            self._write(data)
            return
        try:
            self._decompress(data)
        except zlib.error as error:
            raise BodyFault("bad_response", f"Content-Encoding {self.encoding}: {error}") from error

    def _decompress(self, data: bytes) -> None:
        while data:
            if self._inflate is not None and self._inflate.eof and not self._another(data[0]):
                return
            if self._inflate is None or self._inflate.eof:
                self._inflate = zlib.decompressobj(self._window(data[0]))
            self._write(self._inflate.decompress(data, STEP))
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _another(self, first: int) -> bool:
        """Say whether what follows a finished stream is one more gzip member; padding and rubbish there are passed
        over."""
        return self.encoding in GZIP and first == 0x1F

    def _window(self, first: int) -> int:
        """Return zlib's word for the stream's wrapping: gzip, zlib, or none (what some servers send as deflate)."""
        if self.encoding in GZIP:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.max_bytes:
            raise BodyFault("too_large", f"more than {self.max_bytes} bytes after decompression")
        self._file.write(data)

    def end(self) -> None:
        """Say that all was sent. Raises BodyFault for nothing at all, or a compressed stream that stops early."""
        if self._inflate is not None:
            self._write(self._inflate.flush())
        if self._inflate is not None and not self._inflate.eof:
            raise BodyFault(
                "incomplete_body", f"{self.encoding} stream ends after {self.sent} bytes without its end mark"
            )
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
