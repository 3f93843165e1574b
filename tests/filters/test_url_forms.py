"""One form for all spellings of a URL: filters/url_forms.py, a short way for plain ones, a long one for others."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.url_forms import Forms, host_forms, hosts_of, named_hosts, normal_urls, place_forms, url_forms
from tests.support.paths import SHARED

LAION = SHARED / "data" / "laion400m_10000.parquet"


def test_urls_are_compared_without_what_does_not_matter():
    urls = [
        "http://A.test:80/x#top",
        "https://u:p@a.test:443/x ",
        "a.test/x",
        "ftp://a.test/x",
        "http://a.test/X",
        "http://a.test?q",
        None,
    ]
    assert normal_urls(pa.array(urls)).to_pylist() == [
        "a.test/x",
        "a.test/x",
        None,
        None,
        "a.test/X",
        "a.test/?q",
        None,
    ]
    assert normal_urls(pa.array(["http://a.test:8080/a b"])).to_pylist() == ["a.test:8080/a%20b"]
    same = [
        "http://a.test/~a/ä.jpg?x=é",
        "http://a.test/%7ea/%c3%a4.jpg?x=%C3%A9",
        "http://A.test./%7Ea/ä.jpg?x=%c3%a9",
        None,
    ]
    assert normal_urls(pa.array(same)).unique().to_pylist() == ["a.test/~a/%C3%A4.jpg?x=%C3%A9", None]
    assert normal_urls(pa.array(["http://a.test/a%2fb", "http://a.test/a/b"])).to_pylist() == [
        "a.test/a%2Fb",
        "a.test/a/b",
    ]


def one_by_one(urls):
    """Return the forms by the long way: a blank before it keeps a URL from the short one and changes nothing."""
    forms = url_forms(pa.array([None if url is None else f" {url}" for url in urls], pa.string()))
    return forms.now.to_pylist(), forms.before.to_pylist()


PIECES = (
    *("http://", "https://", "HTTP://", "/", "//", "..", ".", "%2e", "?", "#", "a", "A", "b:80", ":443", ":81", "@"),
    *(" ", "\t", "x.test", "X.Test.", "[::1]", ":", "0x7f.1", "1.2", "'", "{", "%41", "%c3", "%zz", "é", "ß", "\uff58"),
    *("xn--", "xn--fa-hia", "user:p@", "~", "|", ";v=1", "\\", "-", "_", "c.jpg"),
)


def test_the_short_way_and_the_long_way_agree_on_made_up_urls():
    rng = random.Random(7)
    urls = [
        "http://" * (rng.random() < 0.8) + "".join(rng.choices(PIECES, k=rng.randrange(1, 8))) for _ in range(20_000)
    ]
    forms = url_forms(pa.array(urls))
    assert (forms.now.to_pylist(), forms.before.to_pylist()) == one_by_one(urls)


def test_the_short_way_and_the_long_way_agree_on_urls_as_they_are():
    urls = [
        "https://cdn.shopify.com/s/files/1/0012/products/a-b_c.d~e(1)+2,3.jpg?v=15&w=1:2/3.4",
        "http://i.pinimg.com/236x/0a/1b/2c/0a1b2c.jpg",
        "http://localhost/x;y=1/$a!b*c@d",
        "http://a.test//x//y/",
    ]
    assert url_forms(pa.array(urls)).each == (url_forms(pa.array(urls)).now,)  # none went the long way
    assert normal_urls(pa.array(urls)).to_pylist() == [url.partition("://")[2] for url in urls]
    assert one_by_one(urls) == ([url.partition("://")[2] for url in urls],) * 2


@pytest.mark.skipif(not LAION.is_file(), reason="the rows of shared/data are not on this machine")
def test_the_short_way_and_the_long_way_agree_on_10_000_real_urls():
    urls = pq.read_table(LAION, columns=["URL"])["URL"].combine_chunks()
    forms = url_forms(urls)
    assert (forms.now.to_pylist(), forms.before.to_pylist()) == one_by_one(urls.to_pylist())
    assert len(urls) == 10_000
    assert forms.now.null_count == 1  # "UNLIKELY"


def test_forms_of_before_are_of_the_url_as_written():
    """As they stand, hashed, in tombstones of earlier runs."""
    urls = [
        "http://X.test/a/../{b}?q='#f",
        "http://faß.test/%7ea",
        "http:x.test/",
        "http://a..b/c",
        "ftp://x.test/",
        None,
    ]
    forms = url_forms(pa.array(urls))
    assert forms.now.to_pylist() == ["x.test/%7Bb%7D?q=%27", "xn--fa-hia.test/~a", "x.test/", "a..b/c", None, None]
    assert forms.before.to_pylist() == ["x.test/a/../{b}?q='", "fass.test/~a", None, "a..b/c", None, None]


def test_hosts_stand_without_port_and_user():
    urls = ["http://u@A.test:8/x", "http://[0:0::1]:8/x:y", "https://b.test", "http://0x7f.1/", "b.test/x", None]
    assert hosts_of(pa.array(urls)).to_pylist() == ["a.test", "[::1]", "b.test", "127.0.0.1", None, None]
    assert host_forms(pa.array(urls)).before.to_pylist() == ["a.test", "[0:0::1]", "b.test", "0x7f.1", None, None]
    names = ["Bücher.test.", "::1", "[::1]", "1.2.3", None]
    assert named_hosts(pa.array(names)).now.to_pylist() == ["xn--bcher-kva.test", "[::1]", "[::1]", "1.2.0.3", None]


def test_paths_of_pictures_have_one_form():
    paths = ["a/b.jpg", "./a//b.jpg", "a/x/../b.jpg", "a/.b..c.jpg", "", "ftp://a.test/./x", "http://a.test/./x", None]
    forms = place_forms(pa.array(paths))
    plain, kept = ["a/b.jpg"] * 3, ["a/.b..c.jpg", "", "ftp://a.test/./x"]
    assert forms.now.to_pylist() == [*plain, *kept, "a.test/x", None]
    assert forms.before.to_pylist() == [*paths[:6], "a.test/./x", None]


def test_the_form_of_before_is_asked_where_it_differs():
    asked = []

    def test(values):
        asked.append(values.to_pylist())
        return pa.array([value == "b" for value in values.to_pylist()])

    assert Forms(pa.array(["a", "b", "c", None]), pa.array(["a", None, "b", None])).either(test).to_pylist() == [
        False,
        True,
        True,
        False,
    ]
    assert asked == [["a", "b", "c", None], ["b"]]
