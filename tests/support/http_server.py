"""A web server on 127.0.0.1 for pictures of tests, which keeps nobody waiting."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answer in silence; a body is sent at once behind its head, not when the head is acknowledged (40 ms later)."""

    disable_nagle_algorithm = True

    def answer(self, status: int, body: bytes = b"") -> None:
        """Send a status, the length of the body, and the body."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serve in a thread of its own from the start; `close` ends it.

    A fetch opens many connections at once: of more than `request_queue_size` (5 in the library) the kernel drops those
    that come too soon, and they are tried again after a second.
    """

    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Take no more requests and let the port go."""
        self.shutdown()
        self.server_close()
