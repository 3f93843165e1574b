"""Undo Content-Encodings that nobody asked for, in small steps, so that a bomb is never unpacked as a whole."""

import re
import zlib
from collections.abc import Iterator

STEP = 1 << 16  # bytes that one step of gzip or deflate may make; one of br up to twice as many
ZSTD_PIECE = 64
"""Bytes given to zstd at a time: its library has no bound on what one call makes, and four bytes of input can stand for
128 KiB."""
ZSTD_WINDOW = 8 << 20  # bytes of the largest window that RFC 9659 allows on the web
MOST_CODINGS = 3
GZIP = ("gzip", "x-gzip")
UNDONE = (*GZIP, "deflate", "br", "zstd")
REFUSED = ("compress", "x-compress", "dcb", "dcz")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")
"""How pictures begin and no coded stream of one does: a server that names a coding and sends the picture as it is."""
LOOK = max(map(len, SIGNATURES))
GZIP_START = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # RFC 1952, 2.3: deflate, the reserved flags not set
ZSTD_START = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # RFC 8878, 3.1: a frame, a skippable one
START = 4
"""Bytes that tell one more stream from padding and rubbish."""


class CodingFault(Exception):
    """A coded body that is not taken. `reason`: bad_response, incomplete_body or too_large."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Behind:
    """What stands behind a stream that is whole: one more stream, or padding and rubbish, which is passed over."""

    def __init__(self, start: re.Pattern[bytes]) -> None:
        """`start`: how a stream begins, START bytes."""
        self.start = start
        self.held = b""
        self.is_rubbish = False

    def feed(self, data: bytes) -> bytes:
        """Return one more stream from its beginning on, nothing where there is none so far."""
        if self.is_rubbish:
            return b""
        self.held += data
        if len(self.held) < START:
            return b""
        data, self.held = self.held, b""
        self.is_rubbish = self.start.match(data) is None
        return b"" if self.is_rubbish else data


class Inflate:
    """gzip, or deflate with and without zlib's wrapping."""

    errors: tuple[type[Exception], ...] = (zlib.error,)

    def __init__(self, gzip: bool) -> None:
        self.gzip = gzip
        self.behind = Behind(GZIP_START)
        self.stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes unpack to. Raises zlib.error."""
        while data:
            if self.stream is not None and self.stream.eof:
                data = self.behind.feed(data) if self.gzip else b""
                if not data:
                    return
            if self.stream is None or self.stream.eof:
                self.stream = zlib.decompressobj(self._window(data[0]))
            yield self.stream.decompress(data, STEP)
            data = self.stream.unconsumed_tail or self.stream.unused_data

    def _window(self, first: int) -> int:
        """Return zlib's word for the stream's wrapping: gzip, zlib, or none (what some servers send as deflate)."""
        if self.gzip:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS

    @property
    def whole(self) -> bool:
        """Say whether the end mark came."""
        return self.stream is not None and self.stream.eof


class Brotli:
    """br."""

    def __init__(self) -> None:
        import brotli

        self.errors: tuple[type[Exception], ...] = (brotli.error,)
        self.stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes unpack to. Raises brotli.error."""
        if self.whole:
            return
        piece = self.stream.process(data, output_buffer_limit=STEP)
        while piece:
            yield piece
            piece = b"" if self.whole else self.stream.process(b"", output_buffer_limit=STEP)

    @property
    def whole(self) -> bool:
        """Say whether the end mark came."""
        return bool(self.stream.is_finished())


class Zstd:
    """zstd: frames one behind the other, skippable ones among them."""

    def __init__(self) -> None:
        import zstandard

        self.errors: tuple[type[Exception], ...] = (zstandard.ZstdError,)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self.stream = self.decompressor.decompressobj()
        self.behind = Behind(ZSTD_START)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes unpack to. Raises zstandard.ZstdError."""
        for at in range(0, len(data), ZSTD_PIECE):
            piece = data[at : at + ZSTD_PIECE]
            while piece:
                if self.stream.eof:
                    piece = self.behind.feed(piece)
                    if not piece:
                        break
                    self.stream = self.decompressor.decompressobj()
                yield self.stream.decompress(piece)
                piece = self.stream.unused_data

    @property
    def whole(self) -> bool:
        """Say whether the end mark came."""
        return bool(self.stream.eof)


Stream = Inflate | Brotli | Zstd


class Coding:
    """One coding of a body. What begins as a picture is passed through as it is."""

    def __init__(self, name: str) -> None:
        """`name`: one of UNDONE."""
        self.name = name
        self.seen = b""
        self.plain = False
        self.stream: Stream | None = None
        """None until enough has come to know whether the stream is coded at all."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes stand for, in pieces. Raises CodingFault."""
        if self.plain:
            yield data
        elif self.stream is not None:
            yield from self._unpack(data)
        else:
            self.seen += data
            if len(self.seen) >= LOOK:
                yield from self._begin()

    def end(self) -> Iterator[bytes]:
        """Yield what is left at the end. Raises CodingFault where the stream lacks its end mark."""
        if self.seen:
            yield from self._begin()
        if not self.plain and self.stream is not None and not self.stream.whole:
            raise CodingFault("incomplete_body", f"{self.name} stream ends without its end mark")

    def _begin(self) -> Iterator[bytes]:
        data, self.seen = self.seen, b""
        if data.startswith(SIGNATURES):
            self.plain = True
            yield data
        else:
            self.stream = _stream(self.name)
            yield from self._unpack(data)

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        assert self.stream is not None
        try:
            yield from self.stream.feed(data)
        except self.stream.errors as error:
            raise CodingFault("bad_response", f"Content-Encoding {self.name}: {error}") from error


def _stream(name: str) -> Stream:
    if name in GZIP or name == "deflate":
        return Inflate(name in GZIP)
    return Brotli() if name == "br" else Zstd()


class Codings:
    """The codings of a body, undone one after the other; each may make `most` bytes."""

    def __init__(self, header: str, most: int) -> None:
        """`header`: the Content-Encoding of an answer. Raises CodingFault for one that cannot be undone.

        Names that are no coding ("utf-8", "binary", "aws-chunked" on stored objects) are common mistakes: the bytes
        are plain.
        """
        names = [name.strip().lower() for name in header.split(",")]
        if refused := [name for name in names if name in REFUSED]:
            raise CodingFault("bad_response", f"Content-Encoding {refused[0]!r}, though only identity was asked for")
        coded = [name for name in names if name in UNDONE]
        if len(coded) > MOST_CODINGS:
            raise CodingFault("bad_response", f"{len(coded)} Content-Encodings, at most {MOST_CODINGS} are undone")
        self.codings = [Coding(name) for name in reversed(coded)]
        self.made = [0] * len(coded)
        self.most = most

    def __bool__(self) -> bool:
        return bool(self.codings)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes stand for. Raises CodingFault."""
        return self._undone(0, data)

    def end(self) -> Iterator[bytes]:
        """Yield what is left at the end. Raises CodingFault where a stream ends early."""
        for number, coding in enumerate(self.codings):
            for piece in coding.end():
                yield from self._undone(number + 1, piece, number)

    def _undone(self, number: int, data: bytes, by: int | None = None) -> Iterator[bytes]:
        """Yield what comes of bytes that are the input of one coding; `by`: the coding that made them."""
        if by is not None:
            self.made[by] += len(data)
            if self.made[by] > self.most:
                raise CodingFault("too_large", f"more than {self.most} bytes after decompression")
        if number == len(self.codings):
            yield data
            return
        for piece in self.codings[number].feed(data):
            yield from self._undone(number + 1, piece, number)
