"""An S3-compatible server on 127.0.0.1 (moto), and a proxy before it that fails, throttles, stalls and cuts as told."""

import http.client
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from manifests.store import path_of

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
ANSWER = b"<Error><Code>%s</Code><Message>as the test wants it</Message></Error>"


@dataclass
class Faults:
    """What becomes of requests: `choose(number, method, path)` returns "", "500", "503", "slow" or "cut"."""

    choose: Callable[[int, str, str], str] = lambda number, method, path: ""
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, fault) of each request so far."""


@dataclass(frozen=True)
class ObjectStore:
    """A running server: its address, and a new bucket."""

    endpoint: str
    bucket: str
    faults: Faults

    def url(self, folder: str = "run") -> str:
        return f"s3://{self.bucket}/{folder}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_S3": self.endpoint}

    def put_bucket(self) -> None:
        host = self.endpoint.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("PUT", f"/{self.bucket}")
        assert connection.getresponse().status == 200
        connection.close()


class Proxy(BaseHTTPRequestHandler):
    """Passes a request on, or does what `faults` say."""

    protocol_version = "HTTP/1.1"
    behind: str
    faults: Faults

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.choose(next(self.faults.numbers), self.command, self.path)
        self.faults.done.append((self.command, self.path, fault))
        if fault in ("500", "503"):
            answer = ANSWER % (b"SlowDown" if fault == "503" else b"InternalError")
            self._send(int(fault), {"Content-Type": "application/xml"}, answer)
            return
        if fault == "slow":
            time.sleep(0.5)
        status, headers, data = self._pass_on(body)
        if fault == "cut" and len(data) > 1:
            self._send(status, headers, data[: len(data) // 2], says=len(data))
            self.close_connection = True
            return
        self._send(status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        connection.close()
        return answer.status, kept, data

    def _send(self, status: int, headers: dict[str, str], data: bytes, says: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data) if says is None else says))
        self.end_headers()
        self.wfile.write(data)


_OWN = ("connection", "transfer-encoding", "content-length", "keep-alive")


@contextmanager
def object_store(faults: Faults | None = None) -> Iterator[ObjectStore]:
    """Serve a new bucket while the block runs; with `faults` through the proxy."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = None
    try:
        behind = f"{host}:{port}"
        store = ObjectStore(f"http://{behind}", f"bucket-{secrets.token_hex(4)}", faults or Faults())
        store.put_bucket()
        if faults is not None:
            handler = type("OfThisStore", (Proxy,), {"behind": behind, "faults": faults})
            proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            store = ObjectStore(f"http://127.0.0.1:{proxy.server_address[1]}", store.bucket, faults)
        yield store
    finally:
        if proxy is not None:
            proxy.shutdown()
            proxy.server_close()
        server.stop()


def put_run(run: Path, root: Path) -> Path:
    """Upload a run folder of this machine, object by object, as `root` of a store; return that."""
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock"):
        (root / path.relative_to(run)).write_bytes(path.read_bytes())
    return root


def in_memory(name: str = "run") -> Path:
    """Return a new place in this process's memory."""
    return path_of(f"memory://{secrets.token_hex(6)}/{name}")


@contextmanager
def reached(store: ObjectStore) -> Iterator[None]:
    """Let this process, and those that it starts, find the server; clients of other servers are forgotten."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    try:
        yield
    finally:
        S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
