"""One form for all spellings of a URL: filters/url_forms.py, a short way for plain ones, a long one for others."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.url import follow, normalise
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
    assert forms.now.to_pylist() == ["x.test/{b}?q='", "xn--fa-hia.test/~a", "x.test/", "a..b/c", None, None]
    assert forms.before.to_pylist() == ["x.test/a/../{b}?q='", "fass.test/~a", None, "a..b/c", None, None]
    quoted = url_forms(pa.array(["http://x.test/a%7cb?c=%27"]))
    assert (quoted.now.to_pylist(), quoted.before.to_pylist()) == (["x.test/a|b?c='"], ["x.test/a%7Cb?c=%27"])


APART = {"path": "/?#\\", "query": "#&=+"}
"""What means something else percent-encoded; a backslash as written is a slash of the path."""


@pytest.mark.parametrize("part", APART)
def test_percent_encodings_of_printable_characters_are_one_but_of_those_that_part_a_url(part):
    head = {"path": "https://x.test/a", "query": "http://x.test/a?q=b"}[part]
    for code in range(0x21, 0x7F):
        plain, high, low = (f"{head}{text}z" for text in (chr(code), f"%{code:02X}", f"%{code:02x}"))
        forms = normal_urls(pa.array([plain, high, low])).to_pylist()
        assert len(set(forms)) == (2 if chr(code) in APART[part] else 1), plain
        assert forms[1] == forms[2]


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("https://u.test/c/File:Foo_(bar).jpg", "u.test/c/File:Foo_(bar).jpg"),
        ("https://u.test/c/File%3AFoo_%28bar%29.jpg", "u.test/c/File:Foo_(bar).jpg"),
        ("http://x.test/{a}%7Cb^'%5e%27,@%40%5b!", "x.test/{a}|b^'^',@@[!"),
        ("http://x.test/?u=http%3A%2F%2Fy%3F", "x.test/?u=http://y?"),
        ("http://x.test/%2525%2F%3F%23%20", "x.test/%2525%2F%3F%23%20"),
        ("http://x.test/?%26%3D%2B%23%25", "x.test/?%26%3D%2B%23%25"),
        ("http://x.test/100%/%2%35", "x.test/100%25/%2525"),
        ("http://x.test/%c3%a9/%00%7F", "x.test/%C3%A9/%00%7F"),
    ],
)
def test_forms_of_percent_encodings(written, form):
    assert normal_urls(pa.array([written])).to_pylist() == [form]


DOTTED = (".", "..", "%2e", "%2E.", ".%2e", "...", ".git", ".b", "..c", "d.", "a", "private", "", "%2ea")


def resolved(path):
    """Return a path without its dot segments, as the URL standard says it, one segment after the other."""
    kept, segments = [], path.split("/")[1:]
    for number, segment in enumerate(segments):
        dots = segment.lower().replace("%2e", ".")
        if dots == "..":
            kept = kept[:-1]
        if dots not in (".", ".."):
            kept.append(segment)
        elif number == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def test_no_dot_segment_is_left_of_20_000_made_up_paths():
    rng = random.Random(3)
    paths = ["/" + "/".join(rng.choices(DOTTED, k=rng.randrange(1, 8))) for _ in range(20_000)]
    assert sum(resolved(path) != path for path in paths) > 15_000
    assert [resolved(path) for path in ("/a/.b/./c", "/pub/.git/../../private/a", "/../.", "/a//..")] == [
        *("/a/.b/c", "/private/a", "/", "/a/"),
    ]
    for path, form in zip(paths, normal_urls(pa.array([f"http://x.test{path}" for path in paths])), strict=True):
        canonical = f"http://x.test{resolved(path)}"
        assert normalise(f"http://x.test{path}") == canonical
        assert (
            follow("http://x.test/old/.x/y", path if not path.startswith("//") else f"http://x.test{path}") == canonical
        )
        assert form.as_py() == "x.test" + resolved(path).replace("%2e", ".")


def test_hosts_stand_without_port_and_user():
    urls = ["http://u@A.test:8/x", "http://[0:0::1]:8/x:y", "https://b.test", "http://0x7f.1/", "b.test/x", None]
    assert hosts_of(pa.array(urls)).to_pylist() == ["a.test", "[::1]", "b.test", "127.0.0.1", None, None]
    assert host_forms(pa.array(urls)).before.to_pylist() == ["a.test", "[0:0::1]", "b.test", "0x7f.1", None, None]
    names = ["Bücher.test.", "::1", "[::1]", "1.2.3", "::ffff:127.0.0.5", "y8\uff0etest", None]
    assert named_hosts(pa.array(names)).now.to_pylist() == [
        *("xn--bcher-kva.test", "[::1]", "[::1]", "1.2.0.3", "[::ffff:7f00:5]", "y8.test", None)
    ]


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
