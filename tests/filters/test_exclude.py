"""Exclusion lists: what their lines mean, what they match, and where they are wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.exclude import Exclusions, ListError, laion_hashes, read_list


def listed(tmp_path, name, text, kind=None):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_list(path, kind)


def test_kinds_are_told_by_their_looks(tmp_path):
    found = [
        listed(tmp_path, "a.txt", "# takedowns of May\nhttp://a.test/1.jpg   # a letter came\n\n"),
        listed(tmp_path, "b.txt", "uid\n0123456789abcdef0123456789ABCDEF\n"),
        listed(tmp_path, "c.txt", "example.org\n*.example.com\n"),
        listed(tmp_path, "d.txt", "-7815133031266706642\n12\n"),
        listed(tmp_path, "e.txt", "ff00ff00ff00ff00\n"),
        listed(tmp_path, "f.txt", "phash\n8000000000000000\n"),
    ]
    assert [one.kind for one in found] == ["url", "uid", "host", "hash", "phash", "phash"]
    assert [one.values.to_pylist() for one in found] == [
        ["a.test/1.jpg"],
        [bytes.fromhex("0123456789abcdef0123456789abcdef")],
        ["example.org", "example.com"],
        [-7815133031266706642, 12],
        [0xFF00FF00FF00FF00],
        [1 << 63],
    ]


def test_kinds_are_told_by_a_column(tmp_path):
    pq.write_table(pa.table({"score": [1.0, 2.0], "hash": pa.array([5, -6], pa.int64())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"URL": ["HTTPS://A.test/x", None]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"uid": pa.array([b"x" * 16], pa.binary(16))}), tmp_path / "c.parquet")
    found = [read_list(tmp_path / f"{name}.parquet") for name in "abc"]
    assert [(one.kind, one.values.to_pylist()) for one in found] == [
        ("hash", [5, -6]),
        ("url", ["a.test/x"]),
        ("uid", [b"x" * 16]),
    ]
    one = listed(tmp_path, "d.csv", 'why,host\n"a, b",Example.org\n')
    assert (one.kind, one.values.to_pylist()) == ("host", ["example.org"])


@pytest.mark.parametrize(
    ("name", "text", "kind", "says"),
    [
        ("a.txt", "http://a.test/1\n\nnope\n", None, r"line 3: 'nope' is no url"),
        ("a.txt", "0123456789abcdef\nxyz\n", "phash", r"line 2: 'xyz' is no phash"),
        ("a.txt", "1234567890123456\n", None, r"line 1: .* may be phash or hash; say which"),
        ("a.txt", "ab" * 16 + "\n", None, r"line 1: .* may be uid or md5; say which"),
        ("a.txt", "ab" * 32 + "\n", None, r"line 1: .* may be source_sha256 or pdq; say which"),
        ("a.txt", "ab" * 16 + "\n", "sha1", r"line 1: .* is no sha1"),
        ("a.csv", "url,md5\nhttp://a.test/1,00\n", None, r"columns url and md5; say which one is meant"),
        (
            "a.txt",
            "??\n",
            None,
            r"line 1: '\?\?' is of no kind that can be told; say which of uid, url, host, hash, phash",
        ),
        ("a.txt", "a.test\n", "colour", r"kind 'colour'; kinds are uid, url, host, hash, phash"),
        ("a.csv", "url,hash\nhttp://a.test/,1\n", None, r"columns url and hash; say which one is meant"),
        (
            "a.csv",
            "address\nhttp://a.test/\n",
            None,
            r"its columns are address; wanted a column named uid, url, host, hash, phash",
        ),
        ("a.csv", "url\nhttp://a.test/\nwww\n", None, r"line 3: 'www' is no url"),
        ("a.txt", "99999999999999999999\n", "hash", r"line 1: .* is no hash"),
        ("a.txt", "9999999999999999999\n", "hash", r"outside 64 signed bits"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, name, text, kind, says):
    with pytest.raises(ListError, match=says):
        listed(tmp_path, name, text, kind)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    for name, says in (("a.txt", "not UTF-8"), ("a.parquet", r"a\.parquet"), ("none.txt", "No such file")):
        with pytest.raises(ListError, match=says):
            read_list(tmp_path / name)


def rows(**columns):
    urls = [
        "http://a.example.org/1",
        "http://notexample.org/1",
        "https://EXAMPLE.org:99",
        "http://münchen.test/",
        None,
        "not a url",
    ]
    uids = [bytes([n]) * 16 for n in range(len(urls))]
    return {
        "uid": pa.array(uids, pa.binary(16)),
        "url": pa.array(urls),
        "text": pa.array(["a", None, "b", "c", "d", "e"]),
        **columns,
    }


def test_hosts_take_what_lies_below_them(tmp_path):
    found = Exclusions((listed(tmp_path, "a.txt", "example.org\nmünchen.test\n"),)).hits(rows())
    assert found.to_pylist() == [True, False, True, True, False, False]


PRIVATE = "http://x.test/private/b.jpg"
SPELLINGS = [
    "https://x.test/private/b.jpg",
    "http://x.test/pub/../private/b.jpg",
    "http://x.test/./private/./b.jpg",
    "http://x.test/pub/%2e%2E/private/b.jpg",
    "http://x.test/pub/.git/../../private/b.jpg",
    "http://x.test/pub/.a/.%2e/../private/b.jpg",
    "http://x.test\\pub\\.a\\..\\../private/./b.jpg",
    "http://x.test/pub/.%2e/private/b.jpg",
    "http://x.test/pri\tvate/b.jpg",
    "http://x.test/private/\r\nb.jpg",
    "ht\ttp://x.test/private/b.jpg",
    "http://x.test/private/b.jpg?",
    "http://x.test/private/b.jpg#top",
    "http://x.test/%70rivate/%62.jpg",
    "http://x.test./private/b.jpg",
    "http://X.TEST:80/private/b.jpg",
    "http://x.test:080/private/b.jpg",
    "http://x.test:/private/b.jpg",
    "http://\uff58.test/private/b.jpg",
    "http://x.te\u00adst/private/b.jpg",
    "http://%78.test/private/b.jpg",
    "http://x\u3002test/private/b.jpg",
    "http://me:word@x.test/private/b.jpg",
    "http://x.test\\private\\b.jpg",
    "http:\\\\x.test\\pub\\..\\private\\b.jpg",
    "http:x.test/private/b.jpg",
    "http:/x.test/private/b.jpg",
    "http:///x.test/private/b.jpg",
    " \n http://x.test/private/b.jpg\x00 ",
]
OTHERS = [
    "http://x.test/private/B.jpg",
    "http://x.test/private/b.jpg?x",
    "http://x.test/private/b.jpg/",
    "http://x.test/private%2Fb.jpg",
    "http://x.test:8080/private/b.jpg",
    "http://y.test/private/b.jpg?x.test/private/b.jpg",
    "http://x.test@y.test/private/b.jpg",
    "ftp://x.test/private/b.jpg",
]


def named(listed_, urls):
    count = len(urls)
    columns = {"uid": pa.array([b"u" * 16] * count, pa.binary(16)), "url": pa.array(urls, pa.string())}
    return Exclusions((listed_,)).hits(columns).to_pylist()


def test_no_spelling_of_a_listed_url_comes_through(tmp_path):
    found = listed(tmp_path, "a.txt", f"{PRIVATE}\n")
    assert found.values.to_pylist() == ["x.test/private/b.jpg"]
    assert named(found, SPELLINGS) == [True] * len(SPELLINGS)
    assert named(found, OTHERS) == [False] * len(OTHERS)


@pytest.mark.parametrize("line", [0, 1])
def test_no_percent_encoding_of_a_listed_url_comes_through(tmp_path, line):
    pairs = [
        ("http://x.test/a|b", "http://x.test/a%7Cb"),
        ("http://x.test/it's^2", "http://x.test/it%27s%5e2"),
        ("http://x.test/{id}", "http://x.test/%7Bid%7D"),
        ("https://u.test/thumb/File:Foo_(bar).jpg", "https://u.test/thumb/File%3AFoo_%28bar%29.jpg"),
        ("http://x.test/w=1,h=2/@2x[1]!.jpg", "http://x.test/w%3D1%2Ch%3D2/%402x%5B1%5D%21.jpg"),
        ("http://x.test/?a=b|c'd", "http://x.test/?a=b%7Cc%27d"),
    ]
    for pair in pairs:
        found = listed(tmp_path, "a.txt", f"{pair[line]}\n")
        assert named(found, [*pair, f"{pair[0]}x"]) == [True, True, False]
    for one, other in (("/a/b", "/a%2Fb"), ("/?a=b", "/?a%3Db"), ("/?a&b", "/?a%26b"), ("/?a+b", "/?a%2Bb")):
        found = listed(tmp_path, "a.txt", f"http://x.test{(one, other)[line]}\n")
        assert named(found, [f"http://x.test{target}" for target in (one, other)]) == [not line, bool(line)]


def test_hosts_may_be_listed_as_addresses_with_a_quad_and_with_other_dots(tmp_path):
    for number, (line, url) in enumerate(
        [
            ("::ffff:127.0.0.5", "http://[::ffff:7f00:5]/x"),
            ("[::ffff:127.0.0.5]", "http://[::ffff:127.0.0.5]/x"),
            ("y8\uff0etest", "http://cdn.y8.test/x"),
            ("y8\u3002test", "http://y8.test/x"),
            ("y8\uff61test", "http://y8.test/x"),
        ]
    ):
        for head in ("host\n", ""):
            if head or not line.startswith("["):
                assert named(listed(tmp_path, f"{number}.txt", f"{head}{line}\n"), [url, "http://y.test/"]) == [
                    True,
                    False,
                ]
    for bad in ("a.test:80", ".", "\uff0e", "1.2:3"):
        with pytest.raises(ListError, match="is no host"):
            listed(tmp_path, "bad.txt", f"host\n{bad}\n")


def test_a_list_may_spell_a_url_as_it_likes(tmp_path):
    for number, spelling in enumerate(SPELLINGS):
        pq.write_table(pa.table({"url": [spelling]}), tmp_path / f"{number}.parquet")
        found = read_list(tmp_path / f"{number}.parquet")
        assert found.values.to_pylist() == ["x.test/private/b.jpg"], spelling
        assert named(found, [PRIVATE]) == [True]


def test_no_spelling_of_a_listed_host_comes_through(tmp_path):
    for number, spelling in enumerate(("x.test", "X.TEST.", "\uff58.test", "*.x.te\u00adst", "%78.test")):
        found = listed(tmp_path, f"{number}.txt", f"host\n{spelling}\n")
        assert named(found, SPELLINGS) == [True] * len(SPELLINGS), spelling
        assert named(found, OTHERS) == [True] * 5 + [False] * 3
        assert named(found, ["http://cdn.\uff58.test\\", "http://xx.test/"]) == [True, False]
    address = listed(tmp_path, "address.txt", "host\n127.0.0.1\n[0:0::1]\n0::2\n")
    assert (
        named(address, ["http://2130706433/", "http://0x7f.1/", "http://[::1]/x", "http://[0::0:2]:8/"]) == [True] * 4
    )


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("http://faß.test/x", "http://fass.test/x"),  # IDNA 2003 has one spelling of both
        ("http://x.test/{a}?q='", "https://X.test/{a}?q='"),
        ("http://x.test/a/../b", "http://x.test:443/a/../b"),
        ("http://a..b/x", "https://a..b./x"),  # no host that may be asked
    ],
)
def test_what_a_list_named_before_the_url_standard_it_still_names(tmp_path, line, url):
    assert named(listed(tmp_path, "a.txt", f"{line}\n"), [url]) == [True]
    host = listed(tmp_path, "h.txt", "host\nfaß.test\n")
    assert named(host, ["http://fass.test/", "http://faß.test/", "http://xn--fa-hia.test/"]) == [True] * 3


def test_lists_add_up(tmp_path):
    lists = (
        listed(tmp_path, "a.txt", "http://example.org:99/\n"),
        listed(tmp_path, "b.txt", "01" * 16 + "\n", "uid"),
        listed(tmp_path, "c.txt", "05" * 16 + "\n", "uid"),
    )
    assert Exclusions(lists).hits(rows()).to_pylist() == [False, True, True, False, False, True]


def test_laion_hashes_are_murmur3_of_url_and_text(tmp_path):
    # the sample row of LAION's cards is not at hand; mmh3's own x64 halves of b"ab", seed 0
    import mmh3

    assert laion_hashes(pa.array(["a", "a", None]), pa.array(["b", None, "b"])).to_pylist() == [
        mmh3.hash64(b"ab")[0],
        mmh3.hash64(b"a")[0],
        None,
    ]
    wanted = mmh3.hash64("http://münchen.test/c".encode())[0]
    lists = (listed(tmp_path, "a.txt", f"hash\n{wanted}\n17\n"),)
    assert Exclusions(lists).hits(rows()).to_pylist() == [False, False, False, True, False, False]
    given = pa.array([17, None, None, 5, None, None], pa.int64())  # what the input says stands
    assert Exclusions(lists).hits(rows(hash=given)).to_pylist() == [True, False, False, False, False, False]


def test_many_rows_are_quick(tmp_path):
    count = 100_000
    urls = pa.array([f"http://h{n % 500}.example.net/{n}.jpg" for n in range(count)])
    one = listed(tmp_path, "a.txt", "".join(f"http://h{n % 500}.example.net/{n}.jpg\n" for n in range(0, count, 10)))
    hits = Exclusions((one,)).hits({"uid": pa.array([b""] * count), "url": urls})
    assert np.flatnonzero(hits.to_numpy(zero_copy_only=False)).tolist() == list(range(0, count, 10))


@pytest.mark.parametrize(("kind", "width"), [("md5", 16), ("sha1", 20), ("source_sha256", 32), ("pdq", 32)])
def test_lists_of_digests_in_every_format(tmp_path, kind, width):
    value = bytes(range(width))
    digits = value.hex().upper()
    pq.write_table(pa.table({"why": ["x"], kind: pa.array([value], pa.binary(width))}), tmp_path / "a.parquet")
    pq.write_table(pa.table({kind.upper(): [digits, None]}), tmp_path / "b.parquet")
    found = [read_list(tmp_path / f"{name}.parquet") for name in "ab"]
    found.append(listed(tmp_path, "c.csv", f"{kind},note\n{digits},7\n"))
    found.append(listed(tmp_path, "d.tsv", f"note\t{kind}\n7\t{digits}\n"))
    found.append(listed(tmp_path, "e.txt", f"{kind}\n{digits}  # a case\n"))
    found.append(listed(tmp_path, "f.txt", f"{digits}\n", kind))
    assert [(one.kind, one.values.to_pylist()) for one in found] == [(kind, [value])] * 6


def test_forty_digits_are_a_sha1(tmp_path):
    assert listed(tmp_path, "a.txt", "0f" * 20 + "\n").kind == "sha1"
