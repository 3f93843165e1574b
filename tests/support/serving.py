"""A server of pictures with an engine that needs no model: what it draws is a function of the wish alone."""

import asyncio
import io
import json
import socket
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from urllib.parse import urlsplit

from PIL import Image, PngImagePlugin

from pipeline.sampling.pick import Sampling
from pipeline.serving.engine import Facts
from pipeline.serving.limits import Limits
from pipeline.serving.server import Address, Loaded, Running, url_of
from pipeline.serving.wish import Reader

PATIENCE = 20.0


class Shades:
    """Codes are shades of grey: code n of a wish is seed + 3 n + its text's length. `gate` holds each step."""

    def __init__(self, slots=2, grid=4, classes=None, step_seconds=0.0):
        self.facts, self.slots = Facts("shades of grey, no model", classes, grid, 8 * grid), slots
        self.drawn, self.most, self.step_seconds = {}, 0, step_seconds
        self.gate, self.fault = threading.Event(), None
        self.gate.set()
        self.joined, self.left = Counter(), Counter()

    def join(self, slot, wish):
        if wish.text == "unlucky":
            raise ValueError("this caption does not fit")
        assert slot not in self.drawn
        self.drawn[slot] = (wish, 0)
        self.joined[slot] += 1

    def step(self):
        assert self.gate.wait(PATIENCE)
        time.sleep(self.step_seconds)
        if self.fault:
            raise self.fault
        self.most = max(self.most, len(self.drawn))
        found = {}
        for slot, (wish, number) in self.drawn.items():
            if number < self.facts.grid**2:
                found[slot] = (wish.sampling.seed + 3 * number + len(wish.text)) % 256
                self.drawn[slot] = (wish, number + 1)
        return found

    def leave(self, slot):
        del self.drawn[slot]
        self.left[slot] += 1

    def picture(self, codes, wish):
        grid = self.facts.grid
        image = Image.new("LA", (grid, grid))
        image.putdata([*((code, 255) for code in codes), *[(0, 0)] * (grid * grid - len(codes))])
        info = PngImagePlugin.PngInfo()
        info.add_itxt("wish", json.dumps(wish.record()))
        out = io.BytesIO()
        image.resize((self.facts.size, self.facts.size), Image.Resampling.NEAREST).save(out, "PNG", pnginfo=info)
        return out.getvalue()


class Server:
    """A running server in a thread, and a client that waits PATIENCE seconds at most."""

    def __init__(self, engine, limits=None, names=(), reader=None):
        self.engine = engine
        limits = limits or Limits(turn=0, preview_rows=1, grace=0.05, rate=1000)
        reader = reader or Reader(engine.facts.classes, 200, Sampling(cfg_scale=2.0, top_k=0))
        held = Address(port=0).bind()
        self.url, self.ready = url_of(held), threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run(held, frozenset(names), (reader, limits))))
        self.thread.start()
        assert self.ready.wait(PATIENCE)

    async def _run(self, held, names, how):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        reader, limits = how
        async with Running(Loaded(self.engine, reader), held, names, limits) as self.running:
            self.ready.set()
            await self.stop.wait()

    def close(self):
        self.engine.gate.set()
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, path, body=None, headers=()):
        """Return (status, headers, body) of one request."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, method, path, value=None, headers=()):
        """Return (status, parsed body)."""
        body = None if value is None else json.dumps(value)
        kind = {"Content-Type": "application/json"} if body else {}
        status, _, answer = self.call(method, path, body, {**kind, **dict(headers)})
        return status, json.loads(answer)

    def ask(self, prompt="a red fox", **fields):
        status, answer = self.json("POST", "/generate", {"prompt": prompt, **fields})
        assert status == 202, answer
        return answer["id"]

    def until(self, name, *states):
        """Return what is said of a request once it is in one of these states."""
        return eventually(lambda: (said := self.json("GET", f"/requests/{name}")[1])["state"] in states and said)

    def picture(self, name):
        self.until(name, "done")
        status, _, png = self.call("GET", f"/pictures/{name}")
        assert status == 200
        return png


class EventStream:
    """An open stream of server-sent events: iterate for (name, data)."""

    def __init__(self, server, *names):
        self.socket = socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=PATIENCE)
        host = urlsplit(server.url).netloc
        self.socket.sendall(f"GET /events/{','.join(names)} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def __iter__(self):
        name = ""
        for line in self.file:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.socket.close()


def eventually(look):
    """Return what `look` gives as soon as it is true."""
    until = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.005)
    return found
