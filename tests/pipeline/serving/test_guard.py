"""Which hosts and origins the server answers to."""

import pytest

from pipeline.serving.guard import POLICY, check_host, check_origin
from pipeline.serving.limits import Refused


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:8765", "[::1]:8765", "10.1.2.3", "box.lan:80"])
def test_addresses_localhost_and_given_names_are_answered(host):
    check_host(host, {"box.lan"})


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "localhost:x", "[evil]", "a@localhost"],
)
def test_another_name_is_refused(host):
    with pytest.raises(Refused, match="--name adds a name") as refused:
        check_host(host, {"box.lan"})
    assert refused.value.status == 403


def test_a_page_of_another_origin_is_refused():
    check_origin(None, "127.0.0.1:8765")
    check_origin("http://127.0.0.1:8765", "127.0.0.1:8765")
    for origin in ("null", "http://evil.test", "http://127.0.0.1:9", "http://localhost:8765", ""):
        with pytest.raises(Refused, match="may not ask"):
            check_origin(origin, "127.0.0.1:8765")


def test_the_policy_lets_nothing_in_from_elsewhere():
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
