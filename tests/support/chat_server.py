"""A server of chat completions on 127.0.0.1 that fails as it is told to, by words in the question."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from typing import Any

from tests.support.http_server import Handler, Server

MODEL = "stub-7b"
FAULT = re.compile(r"fault:(\w+?)(?:x(\d+))?\b")
"""In a question: `fault:500x2` fails twice and then answers; without a number it fails for ever."""


def reply(text: str | None, model: str | None = MODEL, ended: str = "stop", **message: Any) -> dict[str, Any]:
    """Return the JSON of an answer."""
    usage = {"prompt_tokens": 11, "completion_tokens": len((text or "").split())}
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": ended}
    return {"choices": [choice], "usage": usage, **({"model": model} if model else {})}


def caption_of(question: dict[str, Any]) -> str:
    """Return what the stub says of a question: its text, and which picture it came with."""
    picture, text = question["messages"][0]["content"]
    number = hashlib.sha256(picture["image_url"]["url"].encode()).hexdigest()[:8]
    return f"Picture {number} is described in plain words here. {text['text'][:20]}"


class ChatServer(Server):
    """`asked`: digest of each question -> times that it came. `questions`: the bodies. `most`: questions at a time.
    `healed`: no fault any more. `key`: what requests need. `planted`: words of a question -> the fault that they
    mean."""

    def __init__(self, key: str = "", delay_s: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self.planted: dict[str, str] = {}
        self.questions: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock, self.healed, self.key, self.delay_s = threading.Lock(), False, key, delay_s
        self.now = self.most = 0
        super().__init__(Chat)

    @property
    def base_url(self) -> str:
        """Return what a recipe names."""
        return f"http://{self.address}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


class Chat(Handler):
    """Answers POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        question = json.loads(raw)
        with self.server.lock:
            digest = hashlib.sha256(raw).hexdigest()
            self.server.asked[digest] += 1
            times = self.server.asked[digest]
            self.server.questions.append(question)
            self.server.headers.append(dict(self.headers))
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            time.sleep(self.server.delay_s)
            self.respond(question, times)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def respond(self, question: dict[str, Any], times: int) -> None:
        if self.path != "/v1/chat/completions" or question["model"] != MODEL:
            self.json(404, {"error": {"message": "no such model", "code": "model_not_found"}})
        elif self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.json(401, {"error": {"message": f"no key {self.headers.get('Authorization')}"}})
        else:
            text = question["messages"][0]["content"][1]["text"]
            faults = [fault for words, fault in self.server.planted.items() if words in text]
            found = FAULT.search(" ".join([text, *faults]))
            fails = found and not self.server.healed and (found[2] is None or times <= int(found[2]))
            getattr(self, f"fault_{found[1]}" if found and fails else "well")(question)

    def json(self, status: int, told: object, **headers: str) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def well(self, question: dict[str, Any]) -> None:
        self.json(200, reply(caption_of(question)))

    def fault_429(self, question: dict[str, Any]) -> None:
        self.json(429, {"error": {"message": "slow down"}}, Retry_After="0")

    def fault_429hour(self, question: dict[str, Any]) -> None:
        self.json(429, {"error": {"message": "slow down"}}, Retry_After="3600")

    def fault_quota(self, question: dict[str, Any]) -> None:
        self.json(429, {"error": {"message": "pay", "code": "insufficient_quota"}})

    def fault_500(self, question: dict[str, Any]) -> None:
        self.json(500, {"error": {"message": "out of order"}})

    def fault_400(self, question: dict[str, Any]) -> None:
        self.json(400, {"error": {"message": "takes no\npictures"}})

    def fault_policy(self, question: dict[str, Any]) -> None:
        self.json(400, {"error": {"message": "no", "code": "content_filter"}})

    def fault_filtered(self, question: dict[str, Any]) -> None:
        self.json(200, reply("", ended="content_filter"))

    def fault_slow(self, question: dict[str, Any]) -> None:
        time.sleep(1.0)
        self.close_connection = True

    def fault_half(self, question: dict[str, Any]) -> None:
        body = json.dumps(reply("whole")).encode()
        self.answer(200, body[: len(body) // 2])

    def fault_cut(self, question: dict[str, Any]) -> None:
        body = json.dumps(reply("whole")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:20])
        self.close_connection = True

    def fault_empty(self, question: dict[str, Any]) -> None:
        self.json(200, {**reply(""), "choices": []})

    def fault_large(self, question: dict[str, Any]) -> None:
        self.json(200, reply("x" * (2 << 20)))

    def fault_model(self, question: dict[str, Any]) -> None:
        self.json(200, reply("a caption", model="other-1b"))

    def fault_dropped(self, question: dict[str, Any]) -> None:
        self.close_connection = True

    def fault_redirect(self, question: dict[str, Any]) -> None:
        self.json(307, {}, Location="http://127.0.0.1:1/v1/chat/completions")

    def fault_403(self, question: dict[str, Any]) -> None:
        self.json(403, {"error": {"message": "not you"}})
