"""filters/fetch: config.py, guard.py and url.py: what may be dialled, where to connect instead, which URLs are asked
for."""

import socket

import pytest
from pydantic import ValidationError

from filters.fetch.config import FetchConfig
from filters.fetch.guard import BlockedAddress, ConnectMap, Guard
from filters.fetch.url import UrlFault, follow, normalise

REFUSED = [
    *(
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
    ),
    *(
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.7",
        "192.168.1.1",
        "198.18.0.1",
    ),
    *("198.51.100.9", "203.0.113.5", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *(
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "3fff::1",
        "fec0::1",
    ),
    *(
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
    ),
    *("100::1", "4000::1", "not an address", ""),
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused(address: str) -> None:
    assert Guard().refusal(address)
    with pytest.raises(BlockedAddress, match="is not dialled"):
        Guard().check(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_dialled(address: str) -> None:
    assert Guard().refusal(address) is None


def test_listed_networks_are_dialled_in_either_spelling_and_no_others() -> None:
    guard = Guard.of(["127.0.0.0/8", "fd00::/8"])
    assert [
        guard.refusal(address) for address in ("127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "fd12::1", "8.8.8.8")
    ] == [None] * 5
    assert guard.refusal("::1") == "loopback"
    assert guard.refusal("169.254.169.254") == "link-local and cloud metadata"
    assert Guard.of(["::ffff:10.0.0.0/104"]).refusal("::ffff:10.0.0.1") is None


def test_the_socket_is_where_the_guard_looks() -> None:
    """Whatever a resolver said before: the sockaddr that is about to be dialled is judged."""
    from filters.fetch.connector import Connector

    connector = Connector.__new__(Connector)
    connector.guard = Guard.of(["127.0.0.2/32"])
    with pytest.raises(BlockedAddress):
        connector._socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    connector._socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 80))).close()


CURL = ["a.example:80:127.0.0.1:8080", "a.example::127.0.0.1:1", ":443:[::1]:8443", "::b.example:"]


def test_connect_to_takes_curls_form() -> None:
    config = FetchConfig(connect_to=CURL)
    assert config.connect_to == {
        "a.example:80": "127.0.0.1:8080",
        "a.example:": "127.0.0.1:1",
        ":443": "[::1]:8443",
        ":": "b.example:",
    }
    assert FetchConfig.model_validate(config.model_dump(mode="json")) == config
    table = ConnectMap.of(config.connect_to)
    assert table.target("A.example", 80) == ("127.0.0.1", 8080)
    assert table.target("a.example", 81) == ("127.0.0.1", 1)
    assert table.target("c.example", 443) == ("::1", 8443)
    assert table.target("c.example", 81) == ("b.example", 81)


def test_connect_to_takes_a_table() -> None:
    table = ConnectMap.of(
        FetchConfig(connect_to={"demo.example": "127.0.0.1:9000", "[2001:db8::1]:80": "10.0.0.1"}).connect_to
    )
    assert table.target("demo.example", 443) == ("127.0.0.1", 9000)
    assert table.target("2001:db8::1", 80) == ("10.0.0.1", 80)
    assert table.target("other.example", 80) == ("other.example", 80)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"connect_to": ["a:80:127.0.0.1"]}, "HOST:PORT:ADDR:PORT"),
        ({"connect_to": {"a": "127.0.0.1:99999"}}, "99999"),
        ({"connect_to": {"a:b:c": "127.0.0.1:1"}}, "a:b:c"),
        ({"allow_addresses": ["localhost"]}, "wanted a network"),
        ({"user_agent": "two\r\nlines"}, "printable ASCII"),
        ({"deadline": 3}, "Extra inputs"),
        ({"retries": 11}, "less than or equal to 10"),
        ({"opt_outs": ["noai", "nothing"]}, "wanted some of noai, noimageai"),
        ({"deadline_s": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_say_what_was_wanted(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FetchConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://a.example", "http://a.example/"),
        ("  HTTP://A.Example:80/x#part ", "http://a.example:80/x"),
        ("https://a.example/a b/é.jpg?q=1 2&r=%20", "https://a.example/a%20b/%C3%A9.jpg?q=1%202&r=%20"),
        ("http://日本.example/", "http://xn--wgv71a.example/"),
        ("http://user:secret@a.example/x", "http://a.example/x"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1/"),
        ("http://[0:0::1]:8/x", "http://[::1]:8/x"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1]/"),
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
                "http:///x.jpg",
                "http:/a/x",
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
                "http://%41.example/",
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
