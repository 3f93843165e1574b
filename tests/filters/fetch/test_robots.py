"""filters/fetch: robots.py: groups, agents, longest match, wildcards, odd files; Protego is the reference."""

import random
import time

import pytest

from filters.fetch.robots import MAX_BYTES, RobotsRules, agent_names, matches, path_of, pattern_of, readings
from filters.fetch.url import normalise

NAMES = agent_names("tessera-t2i/0.1 (+https://my.site; me@my.site)")


def refused(text: str | bytes, path: str) -> str | None:
    rules = RobotsRules.of(text if isinstance(text, bytes) else text.encode(), NAMES)
    return rules.refusal(path_of(normalise(f"http://h.example{path}")))


def test_names_under_which_a_site_may_address_us() -> None:
    assert agent_names("tessera-t2i/0.1") == {"tessera", "tessera-t2i"}
    assert agent_names("Mozilla/5.0 (compatible; MyBot/1.0; +http://my.site/2)") == {"tessera", "tessera-t2i", "mybot"}
    assert agent_names("My_Bot me@my.site") == {"tessera", "tessera-t2i", "my_bot"}


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("User-agent: *\nDisallow: /private/", "/private/a.jpg", "Disallow: /private/"),
        ("User-agent: *\nDisallow: /private/", "/public/a.jpg", None),
        ("User-agent: *\nDisallow:", "/a.jpg", None),
        ("User-agent: *\nDisallow: /\nAllow: /pics/", "/pics/a.jpg", None),
        ("User-agent: *\nAllow: /a\nDisallow: /a", "/a", None),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", None),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/y.jpg", "Disallow: /*.jpg$"),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/y.jpg?size=1", None),
        ("User-agent: *\nDisallow: /*size=", "/x/y.jpg?size=1", "Disallow: /*size="),
        ("User-agent: *\nAllow: /pics\nDisallow: /*.jpg", "/pics/a.jpg", "Disallow: /*.jpg"),
        ("User-agent: *\nDisallow: /", "/robots.txt", None),
        ("User-agent: otherbot\nDisallow: /", "/a", None),
        ("User-agent: tessera\nDisallow: /\n\nUser-agent: *\nAllow: /", "/a", "Disallow: /"),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Tessera-T2I\nAllow: /", "/a", None),
        ("User-agent: tesseract\nDisallow: /", "/a", None),
        ("User-agent: a\nUser-agent: TESSERA/2.0 (x)\nUser-agent: b\nDisallow: /x", "/x", "Disallow: /x"),
        (
            "User-agent: tessera\nDisallow: /x\n\nUser-agent: a\nDisallow: /y\n\nUser-agent: tessera\nDisallow: /z",
            "/z",
            "Disallow: /z",
        ),
        ("User-agent: a\nSitemap: http://h/s\nUser-agent: tessera\nDisallow: /x", "/x", "Disallow: /x"),
        ("Disallow: /\nUser-agent: *\nAllow: /", "/a", None),
        ("\ufeffuser-AGENT : * # all\r\ndisALLOW : /x # not here\r\n", "/x", "Disallow: /x"),
        ("User-agent: *\rDisallow: /x", "/x", "Disallow: /x"),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/café/a", "Disallow: /caf%C3%A9"),
        ("User-agent: *\nDisallow: /café", "/caf%c3%a9", "Disallow: /café"),
        ("User-agent: *\nDisallow: /%7ejoe", "/~joe/a", "Disallow: /%7ejoe"),
        ("User-agent: *\nDisallow: /a%2fb", "/a/b", None),
        ("User-agent: *\nDisallow: a", "/a", None),
        ("<html><body>User-agent: *</body>Disallow: /</html>", "/a", None),
        ("", "/a", None),
    ],
)
def test_rules(text: str, path: str, line: str | None) -> None:
    assert refused(text, path) == line


def test_the_paths_that_servers_may_read_a_path_as() -> None:
    assert readings("http://h.example/a.jpg?b=//c") == ("/a.jpg?b=//c",)
    assert readings("http://h.example//a%2fb/?c") == ("//a%2Fb/?c", "/a/b/?c")
    assert readings("http://h.example/x;v=1/..;/a%5C..%5Cb") == (
        "/x;v=1/..;/a%5C..%5Cb",
        "/x;v=1/..;/b",
        "/b",
    )
    assert readings("http://h.example/%2F..%2f..") == ("/%2F..%2F..", "/")
    assert readings("http://h.example/caf%e9//%3f%25") == ("/caf%E9//%3F%25", "/caf%E9/%3F%25")


def test_a_dollar_inside_a_pattern_is_a_plain_one() -> None:
    assert [pattern_of(text) for text in ("/a$b$", "/a$", "$", "/a%24*")] == ["/a%24b$", "/a$", "$", "/a%24*"]
    assert path_of("http://h.example/a$b*'{%27?") == "/a%24b%2A'%7B'?"[:-1]


def test_stars_match_in_order_and_without_overlap() -> None:
    assert [matches("/a*b*c", path) for path in ("/abc", "/axbxcx", "/acb", "/a")] == [True, True, False, False]
    assert [matches("/ab*ba$", path) for path in ("/abba", "/aba", "/abxbab")] == [True, False, False]
    assert [matches("*", "/"), matches("/*$", "/x"), matches("/$", "/"), matches("/$", "/x"), matches("$", "/")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_the_same_verdicts_as_protego() -> None:
    protego = pytest.importorskip("protego")
    rng = random.Random(7)
    for _ in range(3000):
        lines = [
            f"{rng.choice(['Allow', 'Disallow'])}: /{''.join(rng.choices(PIECES, k=rng.randrange(5)))}"
            for _ in range(rng.randrange(4))
        ]
        text = "\n".join(["User-agent: *", *lines])
        path = "/" + "".join(rng.choices(["/", "a", "b", "?x", "é", "A"], k=rng.randrange(6)))
        url = normalise(f"http://h.example{path}")
        assert (refused(text, path) is None) == protego.Protego.parse(text).can_fetch(url, "nobody"), (text, url)


PIECES = ["/", "a", "b", "*", "$", "/a", "?x", "%41", "é"]


def test_crawl_delay() -> None:
    delays = [
        "Crawl-delay: 1.5",
        "Crawl-delay: x",
        "Crawl-delay: -1",
        "Crawl-delay: nan",
        "Crawl-delay: 1e99",
        "Disallow: /",
    ]
    assert [RobotsRules.of(f"User-agent: *\n{line}".encode(), NAMES).delay_s for line in delays] == [
        1.5,
        None,
        None,
        None,
        None,
        None,
    ]
    text = b"User-agent: *\nCrawl-delay: 9\nUser-agent: tessera\nDisallow: /x"
    assert RobotsRules.of(text, NAMES).delay_s is None  # the group for us says nothing of it


def test_odd_files_cost_little() -> None:
    """Random bytes, half a megabyte of rules, and patterns made to be slow: none takes long."""
    rubbish = random.Random(1).randbytes(MAX_BYTES)
    many = b"User-agent: *\n" + b"".join(b"Disallow: /%d\n" % number for number in range(60_000))
    slow = b"User-agent: *\nDisallow: /" + b"*a" * 1000 + b"b"
    started = time.process_time()
    assert refused(rubbish, "/a") is None
    assert refused(many, "/77/x") == "Disallow: /77"  # what stands beyond the cap is passed over
    assert refused(slow, "/" + "a" * 15_000) is None
    assert time.process_time() - started < 20


def test_what_stands_beyond_the_cap_is_passed_over() -> None:
    text = b"User-agent: *\nDisallow: /near\n#" + b"x" * MAX_BYTES + b"\nDisallow: /far\n"
    assert refused(text, "/near") == "Disallow: /near"
    assert refused(text, "/far") is None


def test_an_allow_that_is_cut_at_the_cap_allows_nothing() -> None:
    head, tail = b"User-agent: *\nDisallow: /\n#", b"\nAllow: /"
    text = head + b"x" * (MAX_BYTES - len(head) - len(tail)) + tail + b"public/\n"
    assert refused(text, "/a.jpg") == "Disallow: /"
    assert refused(text[:MAX_BYTES], "/a.jpg") == "Disallow: /"


def test_crawl_delay_ends_no_list_of_user_agents() -> None:
    assert refused(b"User-agent: *\nCrawl-delay: 1\nUser-agent: Foo\nDisallow: /", "/a") == "Disallow: /"
    assert refused(b"User-agent: *\nAllow: /\nUser-agent: Foo\nDisallow: /", "/a") is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-be"])
def test_a_file_with_marks_before_it_is_read(encoding: str) -> None:
    text = "\ufeffUser-agent: *\nDisallow: /x".encode(encoding)
    assert RobotsRules.of(text, NAMES).refusal("/x") == "Disallow: /x"
