"""Rules of sites: robots.txt and tdmrep.json are asked for once, obeyed, and never lied about."""

import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterator

import brotli
import pytest

from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.messages import Answer, Request
from filters.fetch.optout import Receipt
from filters.fetch.sites import SiteCache
from tests.support.hostile_server import GOOD, HTML, Behaviour, HostileServer, gzip_bomb

PLAIN = {"allow_addresses": ["127.0.0.2/32"], "host_rate": 10_000, "deadline_s": 60, "breaker_faults": 1000}
DENY = b"User-agent: *\nDisallow: /good"


def text(body: bytes, status: str = "200 OK", *headers: str) -> Behaviour:
    return lambda x: x.answer(body, status, *headers)


def ask(server: HostileServer, *urls: str, memory: SiteCache | None = None, **settings: object) -> list[Answer]:
    """Return the answers in the order of the URLs; every host name but one leads to the server."""
    table = {":": f"{server.address}:{server.port}", "dead.example": "127.0.0.2:1"}
    config = FetchConfig.model_validate({**PLAIN, "connect_to": table, **settings})
    requests = [Request(number.to_bytes(16, "big"), url) for number, url in enumerate(urls)]
    return sorted(fetch_all(requests, config, memory), key=lambda answer: answer.uid)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer("127.0.0.2") as running:
        yield running


def test_robots_txt_is_asked_for_once_for_each_origin_and_leaves_a_receipt(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(b"User-agent: *\nDisallow: /echo")
    urls = [f"http://{host}.example{path}?{n}" for host in "ab" for path in ("/good", "/echo") for n in range(20)]
    answers = ask(server, *urls)
    assert Counter(answer.reason for answer in answers) == {None: 40, "robots": 40}
    assert {answer.receipt for answer in answers if answer.reason} == {Receipt("robots.txt", "Disallow: /echo")}
    asked = Counter(server.requests)
    assert asked["a.example", "/robots.txt"] == asked["b.example", "/robots.txt"] == 1
    assert asked["a.example", "/.well-known/tdmrep.json"] == 1
    assert not [target for _, target in server.requests if target.startswith("/echo")]


def test_ports_are_sites_of_their_own_and_redirects_are_asked_too(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = lambda x: x.answer(DENY if ":81" in x.fields["host"] else b"")
    server.behaviours["/to"] = text(b"", "302 Found", "Location: http://a.example:81/good")
    answers = ask(server, "http://a.example/good", "http://a.example:81/good", "http://b.example/to")
    assert [answer.reason for answer in answers] == [None, "robots", "robots"]
    assert answers[2].final_url == "http://a.example:81/good"
    assert ("a.example:81", "/good") not in server.requests


PRIVATE = [
    "http://x.test/pub/../private/a.jpg",
    "http://x.test/./private/a.jpg",
    "http://x.test/pub/.git/../../private/a.jpg",
    "http://x.test/a/.b/%2e%2e/..\\private/.c/../a.jpg",
    "http://x.test/pub/%2e%2E/private/a.jpg",
    "http://x.test\\pub\\..\\private\\a.jpg",
    "http:x.test/private/a.jpg",
    " ht\ttp://x.test/pri\nvate/a.jpg ",
    "http://x.test/%70rivate/a.jpg",
    "http://me:word@X.test.:80/private/a.jpg?#top",
    "http://\uff58.te\u00adst/private/a.jpg",
    "http://x.test//private/a.jpg",
    "http://x.test/pub/..//private/a.jpg",
    "http://x.test/private%2Fa.jpg",
    "http://x.test/pub%2f..%2fprivate/a.jpg",
    "http://x.test/pub/..%5cprivate/a.jpg",
    "http://x.test/pub/..;/private/a.jpg",
    "http://x.test/private;v=1/a.jpg",
    "http://x.test/to?relative",
    "http://x.test/to?slashes",
    "http://x.test/to?hidden",
]
SPELLED = {
    "relative": "pub/../private/a.jpg",
    "hidden": "/pub/.a/../../private/a.jpg",
    "slashes": "\\\\x.test\\.\\pri\tvate\\a.jpg",
}


@pytest.mark.parametrize("file", ["/robots.txt", "/.well-known/tdmrep.json"])
def test_no_spelling_of_a_url_passes_by_a_rule_about_its_path(server: HostileServer, file: str) -> None:
    rules = {
        "/robots.txt": b"User-agent: *\nDisallow: /private/",
        "/.well-known/tdmrep.json": b'[{"location": "/private/", "tdm-reservation": 1}]',
    }
    server.behaviours[file] = text(rules[file])
    server.behaviours["/to"] = lambda x: x.answer(b"", "302 Found", f"Location: {SPELLED[x.target.partition('?')[2]]}")
    answers = ask(server, *PRIVATE)
    reason = "robots" if file == "/robots.txt" else "opted_out"
    assert [answer.reason for answer in answers] == [reason] * len(PRIVATE)
    assert {target for _, target in server.requests} <= {*rules, "/to?relative", "/to?slashes", "/to?hidden"}


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/my dir/", "/my%20dir/a"),
        ("/{a}", "/%7Ba%7D"),
        ("/File%3A", "/File:A_(b).jpg"),
        ("/File:A_%28b", "/File%3AA_(b).jpg"),
        ("/a,b@c!", "/a%2Cb%40c%21"),
        ("/%7Ba%7D", "/{a}"),
        ("/a|b", "/a%7Cb"),
        ("/x?q='", "/x?q=%27"),
        ("/a-%2A.jpg", "/a-*.jpg"),
        ("/a%24b", "/a$b"),
        ("/a$b", "/a$b"),
        ("/a.jpg$", "/a.jpg?"),
        ("/*.jpg$", "/a%2Ejpg#x"),
    ],
)
def test_no_spelling_of_a_rule_or_of_a_path_keeps_them_apart(server: HostileServer, rule: str, path: str) -> None:
    server.behaviours["/robots.txt"] = text(f"User-agent: *\nDisallow: {rule}".encode())
    (answer,) = ask(server, f"http://x.test{path}")
    assert (answer.reason, answer.receipt) == ("robots", Receipt("robots.txt", f"Disallow: {rule}"))


def test_what_is_asked_for_is_the_canonical_url_to_the_letter(server: HostileServer) -> None:
    urls = {
        "http://x.test/a/./b/../%7e|'{c}?q={'}|^`é\\..": "/a/%7e|'%7Bc%7D?q={%27}|^`%C3%A9\\..",
        "http://x.test//a;v=1//%2f%2F?a=%20+&&b": "//a;v=1//%2f%2F?a=%20+&&b",
        "http:\\\\X.test.:80\\a b?": "/a%20b",
        "http://x.test/[a]@:$,?[b]/?": "/[a]@:$,?[b]/?",
    }
    ask(server, *urls)
    asked = [one for one in server.requests if one[1] not in ("/robots.txt", "/.well-known/tdmrep.json")]
    assert sorted(asked) == sorted(("x.test", target) for target in urls.values())


@pytest.mark.parametrize("settings", [{}, {"robots": False, "opt_outs": []}])
def test_a_redirect_to_what_lists_name_ends_there(server: HostileServer, settings: dict[str, object]) -> None:
    server.behaviours["/to"] = text(b"", "302 Found", "Location: http:\\\\B.example.\\x\\..\\good?")
    memory = SiteCache(bars="http://b.example/good".__eq__)
    listed, other = ask(server, "http://a.example/to", "http://a.example/good", memory=memory, **settings)
    assert (listed.reason, listed.body, listed.status, other.reason) == ("removed", None, 302, None)
    assert not [host for host, _ in server.requests if host == "b.example"]
    assert "b.example" not in listed.detail + listed.final_url  # nothing of it is written


def test_robots_can_be_switched_off(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(DENY)
    assert ask(server, "http://a.example/good", robots=False)[0].body == GOOD
    server.requests.clear()
    assert ask(server, "http://a.example/good", robots=False, opt_outs=["noai"])[0].body == GOOD
    assert ("a.example", "/robots.txt") not in server.requests


def test_what_robots_txt_says_of_training_is_read_where_it_is_not_obeyed_otherwise(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(b"User-agent: *\nDisallow: /\nContent-Signal: /good ai-train=no")
    refused, free = ask(server, "http://a.example/good", "http://a.example/html", robots=False)
    line = "Content-Signal: /good ai-train=no"
    assert (refused.reason, refused.receipt) == ("opted_out", Receipt("robots.txt Content-Signal", line))
    assert (free.reason, free.body) == (None, HTML)
    assert ("a.example", "/good") not in server.requests


@pytest.mark.parametrize("how", [lambda x: x.reset(), text(b"", "500 Oops"), lambda x: x.send(b"\0\r\n\r\n")])
def test_a_robots_txt_that_need_not_be_obeyed_may_fail(server: HostileServer, how: Behaviour) -> None:
    server.behaviours["/robots.txt"] = how
    assert ask(server, "http://a.example/good", robots=False)[0].body == GOOD


def test_statements_in_robots_txt_leave_receipts_and_can_be_switched_off(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(
        b"User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /html train-ai=y"
    )
    refused, free = ask(server, "http://a.example/good", "http://a.example/html")
    receipt = Receipt("robots.txt Content-Usage", "Content-Usage: train-ai=n")
    assert (refused.reason, refused.receipt, free.reason) == ("opted_out", receipt, None)
    assert ("a.example", "/good") not in server.requests
    assert ask(server, "http://a.example/good", opt_outs=["content-signal"])[0].body == GOOD


def test_statements_in_headers_are_obeyed(server: HostileServer) -> None:
    server.behaviours["/usage"] = text(GOOD, "200 OK", "Content-Usage: search=y", "Content-Usage: train-ai=n")
    server.behaviours["/signal"] = text(GOOD, "200 OK", "content-signal: ai-train=no")
    server.behaviours["/undone"] = text(GOOD, "200 OK", "Content-Usage: train-ai=n", "Content-Usage: train-ai=y")
    server.behaviours["/hop"] = text(b"", "302 Found", "Location: /usage")
    urls = [f"http://a.example/{name}" for name in ("usage", "signal", "undone", "hop")]
    answers = ask(server, *urls)
    usage = Receipt("Content-Usage header", "search=y, train-ai=n")
    assert [answer.receipt for answer in answers] == [
        usage,
        Receipt("Content-Signal header", "ai-train=no"),
        None,
        usage,
    ]
    assert [answer.reason for answer in answers] == ["opted_out", "opted_out", None, "opted_out"]
    assert [answer.reason for answer in ask(server, *urls, opt_outs=["noai"])] == [None] * 4


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone", "304 Not Modified"]
)
def test_a_robots_txt_that_answers_4xx_forbids_all_where_the_recipe_says_so(server: HostileServer, status: str) -> None:
    server.behaviours["/robots.txt"] = text(HTML, status)
    assert ask(server, "http://a.example/good")[0].body == GOOD
    (answer,) = ask(server, "http://a.example/good", robots_4xx="refuse")
    line = f'answered http_{status[:3]}, and fetch.robots_4xx = "refuse"'
    assert (answer.reason, answer.receipt) == ("robots", Receipt("robots.txt", line))
    assert Counter(server.requests)["a.example", "/good"] == 1


ROBOTS: dict[str, tuple[Behaviour, str | None]] = {
    "404": (text(HTML, "404 Not Found"), None),
    "403": (text(HTML, "403 Forbidden"), None),
    "429": (text(b"", "429 Too Many Requests", "Retry-After: 9999"), "http_429"),
    "500": (text(HTML, "500 Internal Server Error"), "robots"),
    "503": (text(HTML, "503 Service Unavailable"), "robots"),
    "html": (text(HTML), None),
    "empty": (text(b""), None),
    "binary": (text(bytes(range(256)) * 1000), None),
    "bomb": (lambda x: x.answer(gzip_bomb(256 << 20), "200 OK", "Content-Encoding: gzip"), None),
    "gzip": (text(gzip.compress(DENY)), "robots"),
    "gzip-twice": (text(gzip.compress(gzip.compress(DENY)), "200 OK", "Content-Encoding: gzip"), "robots"),
    "coding-not-applied": (text(DENY, "200 OK", "Content-Encoding: gzip"), "robots"),
    "br-called-gzip": (text(brotli.compress(DENY), "200 OK", "Content-Encoding: gzip"), "robots"),
    "gzip-bomb-unnamed": (lambda x: x.answer(gzip.compress(DENY + bytes(64 << 20))), "robots"),
    "gzip-cut": (text(gzip.compress(DENY)[:-9]), "incomplete_body"),
    "utf-16": (text(DENY.decode().encode("utf-16-le"), "200 OK", "Content-Type: image/x-icon"), "robots"),
    "huge": (text(DENY + b"\n" + b"# padding\n" * 1_000_000), "robots"),
    "late": (text(b"#" * 600_000 + b"\n" + DENY), None),
    "moved": (text(b"", "301 Moved Permanently", "Location: /deny"), "robots"),
    "loop": (text(b"", "302 Found", "Location: /robots.txt"), None),
    "to-metadata": (text(b"", "302 Found", "Location: http://169.254.169.254/robots.txt"), None),
    "to-file": (text(b"", "302 Found", "Location: file:///etc/passwd"), None),
    "to-nowhere": (text(b"", "302 Found", "Location: http://dead.example/robots.txt"), "connection"),
    "to-a-fault": (text(b"", "302 Found", "Location: /500"), "robots"),
    "to-silence": (text(b"", "301 Moved Permanently", "Location: http://a.example:81/silent"), "timeout"),
    "reset": (lambda x: x.reset(), "connection"),
    "cut": (lambda x: x.answer(DENY, length=1000), "incomplete_body"),
    "garbage": (lambda x: x.send(b"\0\1\2 garbage\r\n\r\n"), "bad_response"),
    "slow": (lambda x: x.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"#"), "timeout"),
}


@pytest.mark.parametrize("kind", ROBOTS)
def test_odd_robots_txt(server: HostileServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filters.fetch.hosts.FIRST_WAIT_S", 0.01)  # how long a fault is waited out: test_politeness.py
    server.behaviours["/robots.txt"], reason = ROBOTS[kind]
    server.behaviours["/deny"] = text(DENY)
    (answer,) = ask(server, "http://a.example/good", deadline_s=1 if kind in ("slow", "to-silence") else 60)
    assert answer.reason == reason
    assert (("a.example", "/good") in server.requests) == (reason is None)
    assert (answer.receipt is not None) == (reason == "robots")


def test_a_site_that_is_down_has_refused_nothing(server: HostileServer) -> None:
    for path in ("/robots.txt", "/.well-known/tdmrep.json", "/good"):
        server.behaviours[path] = text(b"", "503 Service Unavailable")
    (answer,) = ask(server, "http://a.example/good")
    assert answer.reason == "http_503"
    assert answer.detail.startswith("robots.txt: ")
    assert ("a.example", "/good") not in server.requests


def test_crawl_delay_is_kept_and_capped(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(b"User-agent: *\nCrawl-delay: 100")
    started = time.monotonic()
    assert {answer.reason for answer in ask(server, *["http://a.example/good"] * 4, max_crawl_delay_s=0.3)} == {None}
    assert 0.9 <= time.monotonic() - started < 100


def test_tdmrep_is_obeyed_and_can_be_switched_off(server: HostileServer) -> None:
    server.behaviours["/.well-known/tdmrep.json"] = text(b'[{"location": "/good", "tdm-reservation": 1}]')
    refused, free = ask(server, "http://a.example/good", "http://a.example/html")
    assert (refused.reason, refused.receipt) == (
        "opted_out",
        Receipt("tdmrep.json", "location: /good, tdm-reservation: 1"),
    )
    assert free.reason is None
    assert ("a.example", "/good") not in server.requests
    server.requests.clear()
    assert ask(server, "http://a.example/good", opt_outs=["noai"])[0].body == GOOD
    assert ("a.example", "/.well-known/tdmrep.json") not in server.requests


@pytest.mark.parametrize(
    "how", [text(HTML), text(b"", "500 Oops"), lambda x: x.reset(), text(b"[" * 200_000), text(b"x" * (2 << 20))]
)
def test_an_odd_tdmrep_reserves_nothing(server: HostileServer, how: Behaviour) -> None:
    server.behaviours["/.well-known/tdmrep.json"] = how
    assert ask(server, "http://a.example/good")[0].body == GOOD


@pytest.mark.parametrize("pack", [gzip.compress, brotli.compress, lambda body: body.decode().encode("utf-16")])
def test_a_tdmrep_is_read_in_whatever_it_was_packed(server: HostileServer, pack: Callable[[bytes], bytes]) -> None:
    server.behaviours["/.well-known/tdmrep.json"] = text(pack(b'[{"location": "/good", "tdm-reservation": 1}]'))
    assert ask(server, "http://a.example/good")[0].reason == "opted_out"


def test_a_tdmrep_that_ends_early_is_no_leave(server: HostileServer) -> None:
    rule = b'[{"location": "/good", "tdm-reservation": 1}]'
    server.behaviours["/.well-known/tdmrep.json"] = lambda x: x.answer(rule, length=1000)
    (answer,) = ask(server, "http://a.example/good")
    assert answer.reason == "incomplete_body"
    assert answer.detail.startswith("tdmrep.json: ")
    assert ("a.example", "/good") not in server.requests


def test_a_tdmrep_in_a_folder_that_robots_txt_forbids_is_asked_for_and_obeyed(server: HostileServer) -> None:
    server.behaviours["/robots.txt"] = text(b"User-agent: *\nDisallow: /.well-known/")
    server.behaviours["/.well-known/tdmrep.json"] = text(b'[{"location": "/good", "tdm-reservation": 1}]')
    refused, free, forbidden = ask(
        server, *(f"http://a.example{path}" for path in ("/good", "/html", "/.well-known/a.jpg"))
    )
    assert refused.receipt == Receipt("tdmrep.json", "location: /good, tdm-reservation: 1")
    assert (refused.reason, free.reason, forbidden.reason) == ("opted_out", None, "robots")
    assert ("a.example", "/good") not in server.requests


def test_headers_that_are_obeyed_are_the_recipes_choice(server: HostileServer) -> None:
    url = "http://a.example/noai-redirect"
    refused = ask(server, url)[0]
    assert (refused.reason, refused.receipt) == ("opted_out", Receipt("X-Robots-Tag", "noindex"))
    assert ("a.example", "/good") not in server.requests
    assert ask(server, url, opt_outs=["noai", "tdmrep"])[0].body == GOOD


def test_what_was_learned_serves_the_next_shard(server: HostileServer) -> None:
    memory = SiteCache()
    for _ in range(3):
        assert ask(server, "http://a.example/good", memory=memory)[0].body == GOOD
    assert Counter(target for _, target in server.requests) == {
        "/robots.txt": 1,
        "/.well-known/tdmrep.json": 1,
        "/good": 3,
    }
