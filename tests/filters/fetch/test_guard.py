"""Which addresses may be dialled, and where `connect_to` leads instead."""

import pytest

from filters.fetch.config import FetchConfig
from filters.fetch.guard import BlockedAddress, ConnectMap, Guard

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


CURL = ["a.example:80:127.0.0.1:8080", "a.example::127.0.0.1:1", ":443:[::1]:8443", "::b.example:"]


def test_connect_to_in_curls_form_leads_elsewhere() -> None:
    table = ConnectMap.of(FetchConfig(connect_to=CURL).connect_to)
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
