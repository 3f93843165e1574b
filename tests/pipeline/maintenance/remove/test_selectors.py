"""pipeline/maintenance/remove/selectors.py: what may be asked for, what is refused with what was wanted, and which rows
a selector means."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.exclude import ListError, read_list
from manifests.files import write_json, write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.transaction import ASKED
from pipeline.maintenance.remove.selectors import (
    Selector,
    UnreadableRequestError,
    asked_for,
    gather,
    hit_by,
    selector,
    within,
)
from pipeline.recipes.schema import RecipeError
from tests.support.records import put_table, uid

BAD = {
    "url": [
        "",
        " ",
        "nonsense",
        "pictures.test/5.jpg",
        "http://",
        "http:///",
        "http://a b/",
        "https://exa mple.org/a",
        "http://a..b/",
        "htp:/a",
    ],
    "host": [
        "",
        "http://evil.example",
        "evil.example/a",
        "evil.example:80",
        "[::1]:80",
        "com",
        "a..b",
        "..",
        "*.",
        "a.test,b.test",
        "u@a.test",
        "a.test\\b",
        "a.test%2fb",
    ],
    "uid": ["abc", "g" * 32, "a" * 31, "a" * 33, "0x" + "a" * 30],
    "sha256": ["0" * 63, "0" * 65, "x" * 64],
    "phash": ["12", "0xff", "a" * 17],
    "md5": ["a" * 31, "g" * 32],
    "sha1": ["a" * 39],
    "source_sha256": ["a" * 63],
    "pdq": ["a" * 65],
}
GOOD = [
    ("url", "HTTPS://me:pw@Pictures.TEST.:443/a%7eb.jpg?q#top", "pictures.test/a~b.jpg?q"),
    ("url", "http://b\u00fccher.test/x", "xn--bcher-kva.test/x"),
    ("url", "http://intranet:8080/x", "intranet:8080/x"),
    ("url", "http://a.test/my picture.jpg", "a.test/my%20picture.jpg"),
    ("url", "http:\\\\a.test\\pub\\..\\x?", "a.test/x"),
    ("url", " ht\ttp://\uff41.test/./%78", "a.test/x"),
    ("url", "ftp://a.test/x", "ftp://a.test/x"),
    ("url", "http://a.test/" + "x" * 20_000, "a.test/" + "x" * 20_000),
    ("host", "*.Evil.EXAMPLE.", "evil.example"),
    ("host", "b\u00fccher.test", "xn--bcher-kva.test"),
    ("host", "\uff45vil.ex\u00adample", "evil.example"),
    ("host", "%65vil.example", "evil.example"),
    ("host", "127.0.0.1", "127.0.0.1"),
    ("host", "0x7f.1", "127.0.0.1"),
    ("host", "[::1]", "[::1]"),
    ("host", "::ffff:127.0.0.5", "[::ffff:7f00:5]"),
    ("host", "y8\uff0etest", "y8.test"),
    ("host", "localhost", "localhost"),
    ("url", "http://x.test/pub/.git/../../File%3aA_%28b%29%7C.jpg?%27", "x.test/File:A_(b)|.jpg?'"),
    ("uid", "A" * 32, "a" * 32),
    ("phash", "00000000000000FF", "00000000000000ff"),
    ("md5", "A" * 32, "a" * 32),
    ("sha1", "A" * 40, "a" * 40),
    ("source_sha256", "A" * 64, "a" * 64),
    ("pdq", "A" * 64, "a" * 64),
]


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in BAD.items() for value in values])
def test_bad_selectors_are_refused(kind, value):
    with pytest.raises(RecipeError, match=rf"--{kind.replace('_', '-')} .*wanted "):
        selector(kind, value)


@pytest.mark.parametrize(("kind", "value", "canonical"), GOOD)
def test_good_ones_have_one_form(kind, value, canonical):
    assert selector(kind, value).value == canonical


def test_paths_are_urls_where_the_input_has_paths():
    for path in ("pictures/2.jpg", "./pictures//x/../2.jpg"):
        assert selector("url", path, paths=True).value == "pictures/2.jpg"
    with pytest.raises(RecipeError, match="wanted a URL with its scheme"):
        gather({"url": ["pictures/2.jpg"]}, [])


LISTS = {
    "a.txt": (f"# asked\n{'a' * 64}\n{'A' * 64}\n", [("sha256", "a" * 64)]),
    "b.txt": (
        "http://a.test/x.jpg\nhttp://b.test/y.jpg\nHTTPS://A.test/x.jpg#again\n",
        [("url", "a.test/x.jpg"), ("url", "b.test/y.jpg")],
    ),
    "c.csv": ("phash\n00000000000000ff\n", [("phash", "00000000000000ff")]),
    "d.tsv": (f"why\tsha256\nasked\t{'B' * 64}\n", [("sha256", "b" * 64)]),
    "e.txt": ("host\n*.Evil.example\n", [("host", "evil.example")]),
    "f.csv": (
        'url,note\nhttp://a.test/5.jpg,"keep this one:\nhttp://a.test/7.jpg,please"\n# of May\nhttp://a.test/6.jpg,\n',
        [("url", "a.test/5.jpg"), ("url", "a.test/6.jpg")],
    ),
    "g.csv": ('note,url\r\n"case #12\r\n# more",http://a.test/5.jpg\r\n', [("url", "a.test/5.jpg")]),
    "h.tsv": (f'note\tsha256\n"two\nlines\t#"\t{"c" * 64}\n', [("sha256", "c" * 64)]),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_as_exclusion_lists_are(tmp_path, name):
    text, wanted = LISTS[name]
    (tmp_path / name).write_text(text)
    assert [(one.kind, one.value) for one in gather({}, [tmp_path / name])] == wanted


def test_tables_of_sha256_are_lists(tmp_path):
    pq.write_table(pa.table({"sha256": ["b" * 64, None], "why": ["asked", "too"]}), tmp_path / "d.parquet")
    assert gather({}, [tmp_path / "d.parquet"]) == [selector("sha256", "b" * 64)]
    pq.write_table(pa.table({"sha256": ["b" * 64], "url": ["http://a.test/"]}), tmp_path / "d.parquet")
    with pytest.raises(RecipeError, match="columns sha256 and url; a list holds one kind"):
        gather({}, [tmp_path / "d.parquet"])


WRONG = {
    "missing.txt": (None, "No such file"),
    "a.txt": ("???\n", "line 1: .*is of no kind that can be told; wanted one column of url, host, uid, sha256, phash"),
    "b.csv": ("hash\n12\n", "a list of hash; wanted one of"),
    "c.txt": ("", "names nothing"),
    "d.csv": ("url\n", "names nothing"),
    "e.txt": ("# only words\n", "names nothing"),
    "f.csv": ("name,why\na,b\n", "its columns are name, why; wanted one column of"),
    "g.csv": ("url,host\nhttp://a.test/,a.test\n", "columns url and host"),
    "h.csv": (f"url,sha256\nhttp://a.test/,{'a' * 64}\n", "columns sha256 and url"),
    "i.txt": (f"http://a.test/x\n{'a' * 32}\n", "line 2: .*is no url, as the lines before are"),
    "j.csv": (f"sha256\n{'a' * 64}\n{'a' * 63}\n", "line 3: .*is no sha256"),
    "k.txt": ("sha256\nabc\n", "line 2: .*is no sha256"),
    "l.txt": ("host\na..b\n", "is no host"),
    "m.txt": ("uid\nabc\n", "line 2: .*is no uid"),
    "n.csv": ('url,note\nhttp://a.test/5.jpg,"not closed\nhttp://a.test/6.jpg,\n', "line 2: no record of CSV"),
}


@pytest.mark.parametrize("name", WRONG)
def test_lists_of_nothing_or_of_several_kinds_are_refused(tmp_path, name):
    text, says = WRONG[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=f"--list .*{says}"):
        gather({}, [tmp_path / name])


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.parquet"])
def test_a_list_of_other_bytes_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00junk")
    with pytest.raises(RecipeError, match=f"--list {tmp_path / name}: "):
        gather({}, [tmp_path / name])


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecipeError, match="fifo: a pipe or device, wanted a regular file: write the list into one"):
        gather({}, [tmp_path / "fifo"])
    with pytest.raises(ListError, match="a pipe or device"):
        read_list(tmp_path / "fifo")


ROWS = [
    (1, "http://a.test/1.jpg"),
    (2, "https://CDN.a.test:443/2.jpg#top"),
    (3, "http://nota.test/3.jpg"),
    (4, None),
    (5, "http://\uff43.test\\pub\\..\\5.jpg?"),
    (6, "http://fa\u00df.test/6.jpg"),
    (7, "http://d.test/x/../7.jpg?"),
    (8, "http://e.test/x/.y/../../File:8_(b)|c.jpg"),
]


@pytest.fixture
def root(tmp_path):
    """Return a run of four rows: all were selected, the first two were fetched, the first was scored."""
    rows = [{"uid": uid(number), "url": url} for number, url in ROWS] + [{"uid": None, "url": None}]
    schema = pa.schema([("uid", pa.binary(16)), ("url", pa.string())])
    put_table(tmp_path, "select", "ledger/select/00000.parquet", rows, schema)
    digests = {"md5": "cd" * 16, "sha1": "cd" * 20, "source_sha256": "cd" * 32, "pdq": "0d" * 32}
    pairs = [
        {"key": uid(1).hex(), "sha256": "ab" * 32, **dict.fromkeys(digests)},
        {"key": uid(2).hex(), "sha256": None, **digests},
    ]
    write_table(tmp_path / "pairs" / "00000.tar", pa.table({"x": [1]}))  # the first file is not looked at
    write_table(tmp_path / "pairs" / "00000.parquet", pa.Table.from_pylist(pairs))
    files = [FileRecord.of(tmp_path, tmp_path / "pairs" / f"00000.{ending}") for ending in ("tar", "parquet")]
    Journal(tmp_path, "fetch").record(ShardRecord("00000", "key", tuple(files), 2, 2))
    scores = pa.schema([("uid", pa.binary(16)), ("phash", pa.uint64())])
    hashes = [{"uid": uid(1), "phash": 255}, {"uid": uid(2), "phash": None}]
    put_table(tmp_path, "score", "scores/00000.parquet", hashes, scores)
    return tmp_path


HITS = {
    "a URL": (("url", "HTTP://a.test:80/1.jpg"), {1}),
    "a URL in another form": (("url", "https://cdn.a.test/2.jpg"), {2}),
    "a URL in a spelling that browsers know": (("url", "https://C.test./%2e/5.jpg"), {5}),
    "a host in a spelling that browsers know": (("host", "%63.test"), {5}),
    "a URL in another percent-encoding": (("url", "http://e.test/File%3A8_%28b%29%7cc.jpg"), {8}),
    "a host by the older IDNA": (("host", "fass.test"), {6}),
    "a host by the newer IDNA": (("host", "xn--fa-hia.test"), {6}),
    "a host": (("host", "cdn.a.test"), {2}),
    "a domain above": (("host", "a.test"), {1, 2}),
    "a uid": (("uid", uid(4).hex()), {4}),
    "a sha256": (("sha256", "AB" * 32), {1}),
    "a pHash": (("phash", "00000000000000ff"), {1}),
    "an MD5": (("md5", "CD" * 16), {2}),
    "a SHA-1": (("sha1", "CD" * 20), {2}),
    "a SHA-256 of what was received": (("source_sha256", "CD" * 32), {2}),
    "a PDQ hash": (("pdq", "0D" * 32), {2}),
    "nobody": (("host", "b.test"), set()),
    "no such uid": (("uid", uid(9).hex()), set()),
}


@pytest.mark.parametrize("name", HITS)
def test_a_selector_means_the_rows_that_it_names(root, name):
    given, numbers = HITS[name]
    chosen = selector(*given)
    assert hit_by([chosen], root) == {chosen: {uid(number) for number in numbers}}


def test_selectors_of_several_kinds_find_their_rows_at_once(root):
    every = [selector(*given) for given, _ in HITS.values()]
    assert [len(uids) for uids in hit_by(every, root).values()] == [len(numbers) for _, numbers in HITS.values()]


def test_a_shard_of_before_has_no_digests_and_names_nobody(root):
    path = root / "pairs" / "00000.parquet"
    write_table(path, pq.read_table(path, columns=["key", "sha256"]))
    chosen = [selector("md5", "cd" * 16), selector("sha256", "ab" * 32)]
    assert hit_by(chosen, root) == {chosen[0]: set(), chosen[1]: {uid(1)}}


def test_pdq_hashes_within_the_radius_are_meant_too(root):
    near = f"{int('0d' * 32, 16) ^ 0b111:064x}"
    chosen = [selector("pdq", near), selector("md5", "00" * 16)]
    assert within(chosen, 2, root) == chosen == within(chosen, 0, root)
    assert within(chosen, 3, root) == [*chosen, Selector("pdq", "0d" * 32)]
    assert hit_by(within(chosen, 3, root), root)[Selector("pdq", "0d" * 32)] == {uid(2)}


def test_lists_of_digests_are_read_as_in_the_recipe(tmp_path):
    (tmp_path / "a.txt").write_text("md5\n" + "AB" * 16 + "\n")
    (tmp_path / "b.csv").write_text("source_sha256,case\n" + "AB" * 32 + ",1\n")
    (tmp_path / "c.txt").write_text("ab" * 32 + "\n")  # without a name: of the stored picture, as before
    found = gather({}, [tmp_path / name for name in ("a.txt", "b.csv", "c.txt")])
    assert [(one.kind, one.value) for one in found] == [
        ("md5", "ab" * 16),
        ("source_sha256", "ab" * 32),
        ("sha256", "ab" * 32),
    ]


def test_what_an_unfinished_removal_was_asked_for_is_read(tmp_path):
    assert asked_for(tmp_path) == ([], False)
    write_json(tmp_path / ASKED, {"selectors": [["host", "a.test"]], "promote": True}, sealed=True)
    assert asked_for(tmp_path) == ([Selector("host", "a.test")], True)


@pytest.mark.parametrize(
    "entry", [{}, {"selectors": 3, "promote": True}, {"selectors": [["host"]], "promote": True}, {"selectors": []}]
)
def test_a_note_that_is_none_says_so(tmp_path, entry):
    write_json(tmp_path / ASKED, entry, sealed=True)
    with pytest.raises(UnreadableRequestError, match="says what an interrupted removal was asked for, cannot be read"):
        asked_for(tmp_path)


def test_an_unfinished_removal_of_before_finds_its_rows_by_the_form_of_then(root):
    """Its note holds the URL as it was compared then: no dot segment resolved, an empty query kept."""
    asked = Selector("url", "d.test/x/../7.jpg?")
    assert hit_by([asked], root) == {asked: {uid(7)}}
    now = selector("url", "https://d.test/7.jpg")
    assert (now.value, hit_by([now], root)) == ("d.test/7.jpg", {now: {uid(7)}})
