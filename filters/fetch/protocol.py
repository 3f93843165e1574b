"""Read answers with aiohttp's parser, their headers and chunks put into the form of RFC 9112 on the way."""

import asyncio
from collections.abc import Callable

from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import EMPTY_BODY_STATUS_CODES
from aiohttp.http_exceptions import HttpProcessingError

from filters.fetch.chunks import ChunkFault, Chunks
from filters.fetch.header import LENGTH, MOST_BYTES, HeaderFault, end_of, is_http, repaired

INTERIM = range(100, 200)
SWITCHING = 101


class LenientHandler(ResponseHandler):
    """aiohttp's reader of answers; it gets each header whole, and no form of chunks but one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.head = bytearray()
        self.in_head = False
        self.chunks: Chunks | None = None
        self.left: int | None = None
        """Bytes of the body that are still to come, None where no length says so."""
        self.lost: Callable[[], None] | None = None
        """Told when the connection ends."""

    def set_response_params(self, **settings: object) -> None:  # type: ignore[override]
        """Get ready for the next answer: what comes now is its header."""
        self.head, self.in_head, self.chunks = bytearray(), True, None
        self.left = None
        super().set_response_params(**settings)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Take what came from the network."""
        if self._parser is None or not data:
            super().data_received(data)
        elif self.in_head:
            self.head += data
            self._read(len(self.head) - len(data))
        else:
            self._body(data)

    def _read(self, start: int) -> None:
        """Hand on the headers that are whole by now, and what follows the last one."""
        while self.in_head:
            end = end_of(self.head, start)
            if not is_http(self.head) or end > MOST_BYTES or (end < 0 and len(self.head) > MOST_BYTES):
                self._pass_on(bytes(self.head))
            elif end < 0:
                return
            else:
                self._answer(bytes(self.head[:end]), bytes(self.head[end:]))
            start = 0

    def _answer(self, head: bytes, rest: bytes) -> None:
        """Repair one header. One of an interim answer (1xx) is followed by another."""
        self.head = bytearray(rest)
        if not head.strip(b"\r\n"):  # blank lines before the status line
            return
        try:
            head = repaired(head)
        except HeaderFault as fault:
            self._refuse(fault)
            return
        code = head[9:12]
        if code.isdigit() and int(code) in INTERIM and int(code) != SWITCHING:
            super().data_received(head)
            return
        if b"\nTransfer-Encoding: chunked\r" in head:
            self.chunks = Chunks()
            self._pass_on(head)
            self._body(rest)
        else:
            self.left = self._length(head)
            body = self._within(rest)
            self._pass_on(head)  # first, so that what follows, if only after a HEAD, takes nothing from the header
            if body:
                super().data_received(body)

    def _length(self, head: bytes) -> int | None:
        """Return the bytes of the body that a repaired header announces, None where the connection's end is its end."""
        code = head[9:12]
        if self._skip_payload or (code.isdigit() and int(code) in EMPTY_BODY_STATUS_CODES - {SWITCHING}):
            return 0
        named = LENGTH.search(head)
        return int(named[1]) if named is not None and named[1] else None

    def _within(self, data: bytes) -> bytes:
        """Return what of the data belongs to the body. What stands behind it is passed over, and the connection is not
        used again: it would pass for the next answer."""
        if self.left is None:
            return data
        taken = data[: self.left]
        self.left -= len(taken)
        if len(taken) < len(data):
            self.force_close()
        return taken

    def _pass_on(self, data: bytes) -> None:
        self.head, self.in_head = bytearray(), False
        super().data_received(data)

    def _body(self, data: bytes) -> None:
        """Hand on what is no header."""
        try:
            data = self._within(data) if self.chunks is None else self._unchunked(self.chunks, data)
        except ChunkFault as fault:
            self._refuse(fault)
            return
        if data:
            super().data_received(data)

    def _unchunked(self, chunks: Chunks, data: bytes) -> bytes:
        made = chunks.feed(data)
        if chunks.over:
            self.force_close()
        return made

    def _refuse(self, fault: Exception) -> None:
        """End the connection as aiohttp does where its parser cannot read on."""
        self.head, self.in_head, self.chunks = bytearray(), False, None
        payload, error = self._payload, HttpProcessingError(code=400, message=str(fault))
        if self.transport is not None:
            self.transport.close()
        if payload is not None and not payload.is_eof():
            payload.set_exception(error, fault)
        self.set_exception(error, fault)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Hand on what is held back; an end of the chunks that was begun is whole."""
        if self.lost is not None:
            self.lost()
        if self.head:
            self._pass_on(bytes(self.head))
        elif self.chunks is not None and exc is None and self._parser is not None and (end := self.chunks.end()):
            super().data_received(end)
        super().connection_lost(exc)
