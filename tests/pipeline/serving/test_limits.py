"""How often a client may ask, and who is one client."""

import pytest

from pipeline.serving.limits import KNOWN_CLIENTS, Pace, Refused, client_of


def test_a_client_has_a_rate_and_others_are_not_touched():
    now = [100.0]
    pace = Pace(6, lambda: now[0])  # six at once, then one in ten seconds
    for _ in range(6):
        pace.take("a")
    with pytest.raises(Refused, match=r"more than 6 requests a minute; ask again in 11 s") as refused:
        pace.take("a")
    assert (refused.value.status, refused.value.retry_after) == (429, 11)
    pace.take("b")
    now[0] += 10
    pace.take("a")
    with pytest.raises(Refused):
        pace.take("a")


def test_clients_that_are_remembered_are_bounded():
    pace = Pace(1)
    for number in range(KNOWN_CLIENTS + 5):
        pace.take(str(number))
    assert len(pace._clients) == KNOWN_CLIENTS


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
    ],
)
def test_an_ipv6_client_is_its_network(address, client):
    assert client_of(address) == client
