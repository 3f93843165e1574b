"""URLs as written in tables and Location headers, and what is asked for in their place."""

import random

import pytest
from yarl import URL

from filters.fetch.url import MAX_LENGTH, UrlFault, follow, identity, normalise


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://a.example", "http://a.example/"),
        ("  HTTP://A.Example:80/x#part ", "http://a.example/x"),
        ("https://a.example:80/x", "https://a.example:80/x"),
        ("https://a.example/a b/é.jpg?q=1 2&r=%20", "https://a.example/a%20b/%C3%A9.jpg?q=1%202&r=%20"),
        ("http://日本.example/", "http://xn--wgv71a.example/"),
        ("http://user:secret@a.example/x", "http://a.example/x"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1/"),
        ("http://[0:0::1]:8/x", "http://[::1]:8/x"),
        ("http://a_b.example./x", "http://a_b.example/x"),
        ("http://a.example/%zz", "http://a.example/%zz"),
    ],
)
def test_urls_as_written_become_urls_as_asked_for(given: str, asked: str) -> None:
    assert normalise(given) == asked
    assert normalise(asked) == asked


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        *(
            (url, "blocked_scheme")
            for url in (
                "file:///etc/passwd",
                "ftp://a.example/x",
                "data:image/png;base64,AA",
                "javascript:alert(1)",
                "gopher://a/",
            )
        ),
        *(
            (url, "bad_url")
            for url in (
                "",
                "  ",
                "picture.jpg",
                "//a.example/x",
                "http://",
                "http://:80/",
                "a.example:80/x",
            )
        ),
        *(
            (url, "bad_url")
            for url in (
                "http://a..b/",
                "http://a b/",
                "http://[::1/",
                "http://a.example:99999/",
                "http://a.example:x/",
                "http://256.1.1.1/",
            )
        ),
        *(
            (url, "bad_url")
            for url in (
                "http://a\x00.example/",
                "http://" + "a" * 64 + ".example/",
                "http://a.example/" + "x" * 20_000,
                "http://%20.example/",
                "http://[fe80::1%25eth0]/",
                "http://xn--a/",
                "http://xn--/",
                "http://b.xn--0.test/",
                "http://XN--zn7c.test/",
                "http://a.example:0/",
                "http://" + "a." * 127 + "example/",
            )
        ),
        ("data:image/png;base64," + "A" * 100_000, "blocked_scheme"),
    ],
)
def test_what_is_not_asked_for(given: str, reason: str) -> None:
    with pytest.raises(UrlFault) as caught:
        normalise(given)
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 400


CANONICAL = "http://x.test/private/a.jpg"


@pytest.mark.parametrize(
    "written",
    [
        "http://x.test/pub/../private/a.jpg",
        "http://x.test/./private/a.jpg",
        "http://x.test/../../private/./a.jpg",
        "http://x.test/pub/.git/../../private/a.jpg",
        "http://x.test/a/.b/../../private/./a.jpg",
        "http://x.test/.a/.b/..\\%2e./private/.c/%2E%2e/a.jpg",
        "http://x.test/pub/%2e%2e/private/%2E/a.jpg",
        "http://x.test/pub/.%2e/private/a.jpg",
        "http://x.test\\pub\\..\\private/a.jpg",
        "http:\\\\x.test\\private\\a.jpg",
        "http:x.test/private/a.jpg",
        "http:/x.test/private/a.jpg",
        "http:////x.test/private/a.jpg",
        "\x00 \thttp://x.test/private/a.jpg\n ",
        "ht\ntp://x.te\tst/pri\rvate/a.jpg",
        "http://X.TEST:080/private/a.jpg",
        "http://x.test:/private/a.jpg",
        "http://\uff58\uff0etest/private/a.jpg",
        "http://x\u00ad.te\u200bst/private/a.jpg",
        "http://x\u3002test/private/a.jpg",
        "http://%78.t%65st/private/a.jpg",
        "http://x.test./private/a.jpg",
        "http://y.test@x.test/private/a.jpg",
        "http://y.test:80@x.test\\private/a.jpg",
        "http://x.test/private/a.jpg?",
        "http://x.test/private/a.jpg?#@y.test/",
    ],
)
def test_spellings_of_one_url_are_one_as_browsers_have_it(written: str) -> None:
    assert normalise(written) == CANONICAL


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("http://x.test//a//b", "http://x.test//a//b"),
        ("http://x.test/a;v=1/..;/b", "http://x.test/a;v=1/..;/b"),
        ("http://x.test/a%2f..%2fb", "http://x.test/a%2f..%2fb"),
        ("http://x.test/%70", "http://x.test/%70"),
        ("http://x.test/...", "http://x.test/..."),
        ("http://x.test/a?b\\c/../d", "http://x.test/a?b\\c/../d"),
        ("http://x.test/a??", "http://x.test/a??"),
        ("http://x.test/{a}|b'c?{a}|b'c", "http://x.test/%7Ba%7D|b'c?{a}|b%27c"),
        ("http://x.test/a^b?c^d", "http://x.test/a%5Eb?c^d"),
        ("http://x.test/a/.b/.c./..d", "http://x.test/a/.b/.c./..d"),
        ("http://x.test/a #b", "http://x.test/a%20"),
        ("http://xn--ls8h.test/", "http://xn--ls8h.test/"),
        ("http://x.test/a#b?c", "http://x.test/a"),
        ("http://x.test/%252e%252e/a", "http://x.test/%252e%252e/a"),
        ("http://x!y.test/", "http://x!y.test/"),
        ("http://faß.test/", "http://xn--fa-hia.test/"),
        ("http://1.2.3.4.:8/", "http://1.2.3.4:8/"),
        ("http://[::ffff:1.2.3.4]/", "http://[::ffff:102:304]/"),
        ("http:80/a", "http://0.0.0.80/a"),
        ("http://x.test/\u3000", "http://x.test/%E3%80%80"),
    ],
)
def test_what_the_url_standard_leaves_apart_stays_apart(written: str, canonical: str) -> None:
    assert normalise(written) == normalise(canonical) == canonical


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("", "http://a.example/dir/x.jpg?old=1"),
        ("#top", "http://a.example/dir/x.jpg?old=1"),
        ("?", "http://a.example/dir/x.jpg"),
        ("../y?z", "http://a.example/y?z"),
        ("..\\private\\y", "http://a.example/private/y"),
        ("\\private\\y", "http://a.example/private/y"),
        ("\\\\b.example\\y", "http://b.example/y"),
        ("/\\b.example/y", "http://b.example/y"),
        (" \t//B.example:80/%2e%2e/y ", "http://b.example/y"),
        ("http:y", "http://a.example/dir/y"),
        ("http:/y", "http://a.example/y"),
        ("http:?y", "http://a.example/dir/x.jpg?y"),
        ("HT\tTP://b.example\\y", "http://b.example/y"),
        ("https:y", "https://y/"),
        ("https:/b.example/y", "https://b.example/y"),
        ("a/b:c", "http://a.example/dir/a/b:c"),
        ("y?a/../b", "http://a.example/dir/y?a/../b"),
        ("y #z", "http://a.example/dir/y%20"),
        ("?y #z", "http://a.example/dir/x.jpg?y%20"),
        ("/pub/.git/../../private/y", "http://a.example/private/y"),
        (".b/./c", "http://a.example/dir/.b/c"),
    ],
)
def test_locations_lead_where_browsers_go(location: str, leads: str) -> None:
    assert follow("http://a.example/dir/x.jpg?old=1", location) == leads


def test_what_urls_share_that_are_one() -> None:
    assert identity("HTTP://x.test./a/../b#c") == identity("http:x.test/b?") == "http://x.test/b"
    assert [identity(text) for text in ("ftp://X.test/a/../b", "picture.jpg")] == ["ftp://X.test/a/../b", "picture.jpg"]


def test_rows_in_other_percent_encodings_are_one_request_where_servers_take_them_so() -> None:
    same = [
        "http://x.test/File:A_(b)|{c}'^.jpg?d=e,f@",
        "http://x.test/File%3aA_%28b%29%7C%7bc%7D%27%5e.jpg?d=e%2cf%40",
    ]
    assert len({identity(url) for url in same}) == 1
    for apart in (
        "/a+b /a%2Bb",
        "/a;b /a%3Bb",
        "/a/b /a%2Fb",
        "/a%25 /a%2525",
        "/a=b /a%3Db",
        "/a*b /a%2Ab",
        "/?a=b /?a%3Db",
        "/?a+b /?a%20b",
    ):
        assert len({identity(f"http://x.test{target}") for target in apart.split()}) == 2, apart
    assert len({identity(url) for url in ("http://x.test/a", "https://x.test/a", "http://x.test:81/a")}) == 3
    assert normalise(same[1]) == same[1]  # what is asked for stands as it is written


def test_locations_are_resolved() -> None:
    base = "http://a.example/dir/x.jpg?old=1"
    assert follow(base, "y z.jpg") == "http://a.example/dir/y%20z.jpg"
    assert follow(base, "//b.example/ü") == "http://b.example/%C3%BC"
    assert (
        follow(base, "/caf\udce9") == "http://a.example/caf%E9"
    )  # Latin-1 bytes in a header, as aiohttp hands them over
    assert follow(base, "?new=1") == "http://a.example/dir/x.jpg?new=1"
    with pytest.raises(UrlFault, match="blocked_scheme"):
        follow(base, "file:///etc/passwd")


def test_hosts_that_idna_2008_does_not_know() -> None:
    """An emoji has no place in it; such hosts exist all the same (punycode of U+1F4A9 is ls8h)."""
    assert normalise("http://\U0001f4a9.la/x") == "http://xn--ls8h.la/x"


@pytest.mark.parametrize(
    ("host", "quad"),
    [("127.1", "127.0.0.1"), ("1.2.3", "1.2.0.3"), ("0x8080808", "8.8.8.8"), ("010.8.8.8", "8.8.8.8")],
)
def test_short_hexadecimal_and_octal_addresses_become_dotted_quads(host: str, quad: str) -> None:
    assert normalise(f"http://{host}/") == f"http://{quad}/"


def test_the_longest_url() -> None:
    head = "http://a.example/"
    longest = head + "x" * (MAX_LENGTH - len(head))
    assert normalise(longest) == longest
    with pytest.raises(UrlFault, match="of 16385 characters; wanted http"):
        normalise(longest + "x")


def test_locations_that_lead_nowhere() -> None:
    for location in ("http://[broken/", "http://a.example:0/", "http://a..b/"):
        with pytest.raises(UrlFault) as caught:
            follow("http://a.example/", location)
        assert caught.value.reason == "bad_url"


PIECES = (
    "http://",
    "https:",
    "x.test",
    "/",
    "\\",
    "..",
    "%2e",
    "%",
    "?",
    "#",
    ":",
    "@",
    "[",
    "]",
    "xn--",
    " ",
    "é",
    "\udce9",
)


def test_made_up_urls_have_one_canonical_form_and_are_sent_as_it_stands() -> None:
    """Whatever is written, a canonical URL is its own, and the client's URL class changes nothing of it."""
    rng, count = random.Random(11), 0
    for _ in range(5_000):
        odd = [chr(rng.choice((rng.randrange(0x80), rng.randrange(0x110000)))) for _ in range(2)]
        text = rng.choice(("http://", "https://x.test/", "")) + "".join(
            rng.choices((*PIECES, *odd), k=rng.randrange(9))
        )
        for make in (normalise, lambda location: follow("https://a.test/b/c?d", location)):
            try:
                url = make(text)
            except UrlFault:
                continue
            count += 1
            assert normalise(url) == url
            assert (url.isascii(), url.isprintable(), " " in url) == (True, True, False)
            host, slash, target = url.partition("://")[2].partition("/")
            sent = URL(url, encoded=True)
            assert (sent.host_port_subcomponent, sent.raw_path_qs) == (host, slash + target)
    assert count > 3_000
