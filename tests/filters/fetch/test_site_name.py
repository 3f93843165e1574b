"""filters/fetch/site_name.py: whose a host is."""

import pytest

from filters.fetch.site_name import site_of


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("img1.cdn.example", "cdn.example"),
        ("cdn.example", "cdn.example"),
        ("A.B.Cdn.Example.", "cdn.example"),
        ("img.shop.co.uk", "shop.co.uk"),
        ("one.github.io", "one.github.io"),
        ("a.one.github.io", "one.github.io"),
        ("bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com"),
        ("i0.wp.com", "wp.com"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("img.xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("[::1]", "::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_site_of(host: str, site: str) -> None:
    assert site_of(host) == site
