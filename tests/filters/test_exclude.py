"""Exclusion lists: what their lines mean, what they match, and where they are wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.exclude import Exclusions, ListError, laion_hashes, normal_urls, read_list


def listed(tmp_path, name, text, kind=None):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_list(path, kind)


def test_kinds_are_told_by_their_looks(tmp_path):
    found = [
        listed(tmp_path, "a.txt", "# takedowns of May\nhttp://a.test/1.jpg   # a letter came\n\n"),
        listed(tmp_path, "b.txt", "0123456789abcdef0123456789ABCDEF\n"),
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


def test_lists_add_up(tmp_path):
    lists = (
        listed(tmp_path, "a.txt", "http://example.org:99/\n"),
        listed(tmp_path, "b.txt", "01" * 16 + "\n"),
        listed(tmp_path, "c.txt", "05" * 16 + "\n"),
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
