"""The endpoint over HTTP: what is drawn, refused, cancelled and let go."""

import base64
import io
import json
import socket
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pipeline.serving.app import PAGE
from pipeline.serving.limits import Limits
from tests.support.serving import EventStream, Server, Shades, eventually

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server():
    with Server(Shades()) as running:
        yield running


def test_a_prompt_becomes_a_picture(server):
    status, answer = server.json("POST", "/generate", {"prompt": " two cats ", "seed": 5})
    assert status == 202
    name = answer["id"]
    assert answer == {
        **{"id": name, "state": answer["state"], "text": "two cats", "seed": 5, "cfg_scale": 2.0, "top_k": 0},
        **{"top_p": 1.0, "temperature": 1.0, "ahead": answer["ahead"]},
        **{"events": f"/events/{name}", "picture": f"/pictures/{name}"},
    }
    picture = Image.open(io.BytesIO(server.picture(name)))
    assert list(picture.resize((4, 4), 0).getchannel(0).get_flattened_data()) == [5 + 3 * n + 8 for n in range(16)]
    assert json.loads(picture.info["wish"])["text"] == "two cats"
    assert server.until(name, "done")["picture"] == f"/pictures/{name}"


def test_the_page_and_its_files_come_with_a_strict_policy(server):
    for path, (_, kind) in PAGE.items():
        status, headers, body = server.call("GET", path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"http" not in body.replace(b"http://www.w3.org/2000/svg", b"")  # nothing from elsewhere


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "says"),
    [
        ("POST", "/generate", "{", JSON, 400, "the body is no JSON"),
        ("POST", "/generate", '{"promt": 1}', JSON, 400, "unknown field 'promt'"),
        ("POST", "/generate", '{"prompt": "x"}', {"Content-Type": "text/plain"}, 415, "application/json"),
        ("POST", "/generate", "x" * 20_000, JSON, 413, "more than 16,384 bytes"),
        ("POST", "/generate", '{"prompt": "x"}', {**JSON, "Host": "evil.test"}, 403, "is not called 'evil.test'"),
        ("GET", "/", None, {"Host": "evil.test:80"}, 403, "is not called"),
        ("GET", "/events/1-0", None, {"Host": "evil.test"}, 403, "is not called"),
        ("POST", "/generate", '{"prompt": "x"}', {**JSON, "Origin": "http://evil.test"}, 403, "may not ask"),
        ("DELETE", "/requests/1-0", None, {"Origin": "null"}, 403, "may not ask"),
        ("GET", "/pictures/1-0", None, {}, 404, "no such request"),
        ("GET", "/pictures/%D9%A1-0", None, {}, 404, "no such request"),
        ("GET", "/nowhere", None, {}, 404, "GET /nowhere: Not Found"),
        ("PUT", "/generate", "x", {}, 405, "Method Not Allowed"),
        ("GET", "/page/../app.py", None, {}, 404, "Not Found"),
        ("GET", "/events/" + ",".join(["1-0"] * 2 + [f"{n}-0" for n in range(40)]), None, {}, 400, "wanted 1 to 32"),
    ],
)
def test_what_is_wrong_is_a_sentence(server, method, path, body, headers, status, says):
    found, headers_back, answer = server.call(method, path, body, headers)
    assert found == status
    assert says in json.loads(answer)["error"]
    assert "default-src 'none'" in headers_back["Content-Security-Policy"]


def test_events_show_rows_and_the_end(server):
    server.engine.gate.clear()
    name = server.ask("rows", seed=1)
    stream = EventStream(server, name)
    server.engine.gate.set()
    told = list(stream)
    stream.close()
    previews = [data for kind, data in told if kind == "drawing" and "png" in data]
    assert told[-1][0] == "done"
    assert [data["of"] for data in previews] == [4] * len(previews)
    rows = [data["rows"] for data in previews]
    assert rows
    assert rows == sorted(set(rows))
    first = Image.open(io.BytesIO(base64.b64decode(previews[0]["png"]))).resize((4, 4), 0)
    assert list(first.getchannel(1).get_flattened_data()) == [255] * 4 * rows[0] + [0] * (16 - 4 * rows[0])


def test_one_stream_tells_of_many(server):
    names = [server.ask(f"picture {n}") for n in range(5)]
    stream = EventStream(server, *names)
    told = list(stream)
    stream.close()
    assert {data["id"] for kind, data in told if kind == "done"} == {*names}


def test_a_caption_that_does_not_fit_fails_alone(server):
    good, bad = server.ask("fine"), server.ask("unlucky")
    assert server.until(bad, "failed")["reason"] == "this caption does not fit"
    assert server.call("GET", f"/pictures/{bad}")[0] == 500
    assert server.picture(good)


def test_status_counts(server):
    eventually(lambda: server.json("GET", "/status")[1]["slots"]["taken"] == 0)
    status, now = server.json("GET", "/status")
    assert status == 200
    assert now["model"] == {"says": "shades of grey, no model", "classes": None, "grid": 4, "size": 32}
    assert now["slots"]["all"] == 2
    assert now["requests"]["asked"] == sum(now["requests"][end] for end in ("done", "cancelled", "failed"))
    assert now["defaults"] == {"cfg_scale": 2.0, "top_k": 0, "top_p": 1.0, "temperature": 1.0}


def test_a_picture_with_others_is_the_one_it_is_alone():
    wishes = [(f"wish {n}", n * 7) for n in range(9)]
    with Server(Shades(slots=1)) as server:
        alone = [server.picture(server.ask(text, seed=seed)) for text, seed in wishes]
    with Server(Shades(slots=4)) as server:
        server.engine.gate.clear()
        names = [server.ask(text, seed=seed) for text, seed in wishes]
        server.engine.gate.set()
        assert [server.picture(name) for name in names] == alone
        assert server.engine.most == 4


def test_a_request_joins_while_others_are_in_the_middle():
    with Server(Shades(slots=2, grid=16, step_seconds=0.002)) as server:
        first = server.ask("first")
        eventually(lambda: server.engine.drawn and server.engine.drawn[0][1] > 20)
        second = server.ask("second")
        eventually(lambda: len(server.engine.drawn) == 2)
        assert server.json("GET", f"/requests/{first}")[1]["state"] == "drawing"
        assert server.picture(first)
        assert server.picture(second)


def test_cancelling_frees_the_slot_and_the_queue():
    with Server(Shades(slots=1, step_seconds=0.005, grid=64)) as server:
        drawn, waits, last = (server.ask(text) for text in ("drawn", "waits", "last"))
        server.until(drawn, "drawing")
        assert server.json("GET", f"/requests/{last}")[1]["ahead"] == 1
        assert server.json("DELETE", f"/requests/{waits}")[1]["state"] == "cancelled"
        assert server.json("GET", f"/requests/{last}")[1]["ahead"] == 0
        assert server.json("DELETE", f"/requests/{drawn}")[1]["reason"] == "cancelled"
        server.until(last, "drawing")
        assert server.engine.left[0] == 1
        status, answer = server.json("GET", f"/pictures/{drawn}")
        assert (status, answer["error"]) == (410, f"{drawn} is cancelled: cancelled")


def test_a_picture_whose_watcher_is_gone_is_given_up():
    with Server(Shades(slots=1, step_seconds=0.005, grid=64)) as server:
        name = server.ask()
        stream = EventStream(server, name)
        assert next(iter(stream))[1]["id"] == name
        stream.close()
        assert server.until(name, "cancelled")["reason"] == "nobody watched it any more"
        eventually(lambda: server.engine.drawn == {})


def test_one_who_comes_back_keeps_the_picture():
    limits = Limits(turn=0, preview_rows=1, grace=600, rate=1000)
    with Server(Shades(slots=1, step_seconds=0.001, grid=16), limits) as server:
        name = server.ask()
        stream = EventStream(server, name)
        next(iter(stream))
        stream.close()
        eventually(lambda: server.running.service.streams.open.total() == 0)
        again = EventStream(server, name)
        assert list(again)[-1][0] == "done"
        again.close()


def test_the_queue_and_the_client_have_limits():
    with Server(Shades(slots=1), Limits(queue=2, per_client=9, turn=0)) as server:
        server.engine.gate.clear()
        server.until(server.ask("in the slot"), "drawing")
        server.ask("waits")
        server.ask("waits too")
        status, headers, answer = server.call("POST", "/generate", '{"prompt": "x"}', JSON)
        assert (status, headers["Retry-After"]) == (503, "10")
        assert "the queue is full (2 wait)" in json.loads(answer)["error"]
    with Server(Shades(slots=1), Limits(per_client=1, rate=2, turn=0)) as server:
        server.engine.gate.clear()
        server.ask()
        assert server.json("POST", "/generate", {"prompt": "x"}) == (
            429,
            {"error": "1 pictures of yours wait or are drawn, which is the limit; let one end"},
        )
        status, headers, answer = server.call("POST", "/generate", '{"prompt": "x"}', JSON)
        assert status == 429
        assert "more than 2 requests a minute" in json.loads(answer)["error"]
        assert int(headers["Retry-After"]) <= 31


def test_streams_are_bounded():
    with Server(Shades(slots=1), Limits(streams_per_client=2, turn=0)) as server:
        server.engine.gate.clear()
        name = server.ask()
        streams = [EventStream(server, name) for _ in range(3)]
        assert [stream.status for stream in streams] == [200, 200, 429]
        for stream in streams:
            stream.close()


def test_finished_pictures_are_let_go():
    with Server(Shades(), Limits(keep=2, turn=0)) as server:
        names = []
        for number in range(4):
            names.append(server.ask(f"{number}"))
            server.until(names[-1], "done")
        assert [server.call("GET", f"/pictures/{name}")[0] for name in names] == [410, 410, 200, 200]
        assert "was let go; the last 2 pictures are kept" in server.json("GET", f"/requests/{names[0]}")[1]["error"]
        server.json("DELETE", f"/requests/{names[3]}")
        assert server.call("GET", f"/pictures/{names[3]}")[0] == 410
        forged = f"1-{'0' * 24}"
        assert server.call("GET", f"/pictures/{forged}")[0] == 404


def test_a_turn_that_fails_ends_the_pictures_in_hand_only():
    with Server(Shades(), Limits(turn=0)) as server:
        server.engine.gate.clear()
        name = server.ask()
        server.until(name, "drawing")
        server.engine.fault = RuntimeError("out of memory\nby 3 GiB")
        server.engine.gate.set()
        assert server.until(name, "failed")["reason"] == "out of memory"
        server.engine.fault = None
        assert server.picture(server.ask())


def test_a_body_of_unknown_length_is_bounded(server):
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("POST", "/generate", iter([b"x" * 9000] * 3), JSON, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_what_is_no_http_is_refused(server):
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=20) as client:
        client.sendall(b"\x00\x01 nonsense\r\n\r\n")
        assert b" 400 " in client.recv(1000).splitlines()[0]
    assert server.call("GET", "/status")[0] == 200
