"""Samples of tars: what each says, and that none is without a row, whatever its members are called and where they
stand."""

import io
import tarfile

import pytest

from manifests.shards import write_shard
from pipeline.inputs import samples as module
from pipeline.inputs.samples import Apart, sample_rows
from tests.support.tar_files import SAMPLES, cut, write_members

MAPPING = {"url": "url", "text": "caption", "similarity": "similarity"}


@pytest.fixture
def tar(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    return tmp_path / "0.tar"


@pytest.fixture
def written(tmp_path):
    """Return a function: names of members, text for what ends with txt, links for (name, kind) -> their rows."""

    def write(*members, by_key=False):
        write_members(tmp_path / "0.tar", *members)
        found = sample_rows(str(tmp_path / "0.tar"), "t", MAPPING, by_key=by_key)
        return [(row["url"], row["text"], row["fault"]) for row in found]

    return write


def rows(tar, name="in/0.tar"):
    return list(sample_rows(str(tar), name, MAPPING))


def test_a_row_for_every_sample_and_one_without_a_picture_says_so(tar):
    said = {"similarity": None, "fault": None}
    assert rows(tar) == [
        {"url": "http://a.test/0", "text": "said", "similarity": 0.5, "key": "k0", "fault": None},
        {"url": "in/0.tar/k1.webp", "text": "caf\ufffd", "key": "k1", **said},
        {"url": "in/0.tar/k2.txt", "text": "no picture", "key": "k2", **said, "fault": "missing_file"},
        {"url": "in/0.tar/k3.png", "text": None, "key": "k3", **said},
    ]


def test_a_note_that_is_too_large_counts_as_not_there(tar, monkeypatch):
    monkeypatch.setattr(module, "MAX_NOTE", 7)
    assert [(row["url"], row["text"]) for row in rows(tar)] == [
        ("in/0.tar/k0.jpg", None),
        ("in/0.tar/k1.webp", "caf\ufffd"),
        ("in/0.tar/k2.txt", None),
        ("in/0.tar/k3.png", None),
    ]


def test_where_the_tar_is_cut_a_last_row_says_so(tar):
    """A member is a header of 512 bytes and its content filled up to 512: k0's two members are 2048 bytes."""
    cut(tar, 2048 + 1024 + 100)
    assert [(row["key"], row["fault"]) for row in rows(tar)] == [("k0", None), (None, "broken_tar")]
    cut(tar, 2048)  # between two samples: only the end mark is missing
    assert [(row["key"], row["fault"]) for row in rows(tar)] == [("k0", None), (None, "broken_tar")]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # a key with dots and blanks: WebDataset's key is "trip 2"
        (("trip 2.0 a.jpg", "trip 2.0 a.txt"), [("trip 2.0 a.jpg", "of trip 2.0 a.txt", None)]),
        (
            ("trip 2.0 a.jpg", "trip 2.0 a.txt", "trip 2.0 b.jpg", "trip 2.0 b.txt", "trip 2.0 c.txt"),
            [
                ("trip 2.0 a.jpg", "of trip 2.0 a.txt", None),
                ("trip 2.0 b.jpg", "of trip 2.0 b.txt", None),
                ("trip 2.0 c.txt", "of trip 2.0 c.txt", "missing_file"),
            ],
        ),
        (
            ("trip.jpg", "trip.txt", "trip.2.jpg", "trip.2.txt"),
            [("trip.jpg", "of trip.txt", None), ("trip.2.jpg", "of trip.2.txt", None)],
        ),
        # two pictures under one text: which is meant is not known
        (("m.left.jpg", "m.right.jpg", "m.txt"), [("m.txt", "of m.txt", "missing_file")]),
        (("m.left.jpg", "m.right.jpg"), [("m.left.jpg", None, None), ("m.right.jpg", None, None)]),
        (("m.left.jpg", "m.right.jpg", "m.a.txt"), [("m.a.txt", "of m.a.txt", "missing_file")]),
        (("m.left.jpg", "m.txt"), [("m.left.jpg", "of m.txt", None)]),
        # a text under another name than the one picture's
        (("m.left.jpg", "m.caption.txt"), [("m.left.jpg", "of m.caption.txt", None)]),
        (("m.jpg", "m.caption.txt", "m.alt.txt"), [("m.jpg", "of m.caption.txt", None)]),
        (("m.jpg", "m.caption.txt", "m.txt"), [("m.jpg", "of m.txt", None)]),
        # others beside the sample's own picture belong to it
        (("m.jpg", "m.seg.png", "m.txt"), [("m.jpg", "of m.txt", None)]),
        (("m.jpg", "m.cls", "m.txt"), [("m.jpg", "of m.txt", None)]),
        # no picture that is known or can be read
        (("0.txt",), [("0.txt", "of 0.txt", "missing_file")]),
        (("0",), [("0", None, "missing_file")]),
        (("0.mp4", "0.txt"), [("0.mp4", "of 0.txt", "missing_file")]),
        ((("0.jpg", tarfile.SYMTYPE), "0.txt"), [("0.jpg", "of 0.txt", "missing_file")]),
        ((("0.jpg", tarfile.LNKTYPE),), [("0.jpg", None, "missing_file")]),
        (
            (("0.jpg", tarfile.CHRTYPE), ("1.jpg", tarfile.FIFOTYPE)),
            [(f"{n}.jpg", None, "missing_file") for n in (0, 1)],
        ),
        ((("0.jpg", tarfile.DIRTYPE), "0.txt"), [("0.txt", "of 0.txt", "missing_file")]),
        # endings in capitals, and more of them
        (("0.JPG", "0.TXT", "1.jfif"), [("0.jpg", "of 0.TXT", None), ("1.jfif", None, None)]),
        # two samples of one key
        (
            ("0.jpg", "0.txt", "0.jpg", "0.txt"),
            [("0.jpg", "of 0.txt", None), ("0.jpg", "of 0.txt", "missing_file")],
        ),
        # WebDataset's notes on the tar, and pictures that are called so
        (("__index__.json", "x/__note__", "0.jpg"), [("0.jpg", None, None)]),
        (
            ("__cover__.jpg", "__cover__.txt", "x/__y__.jpg"),
            [("__cover__.jpg", "of __cover__.txt", None), ("x/__y__.jpg", None, None)],
        ),
        (("a/0.jpg", "b/0.jpg"), [("a/0.jpg", None, None), ("b/0.jpg", None, None)]),
    ],
)
def test_no_sample_is_without_a_row(written, members, expected):
    found = [(url.removeprefix("t/"), text, fault) for url, text, fault in written(*members)]
    assert found == expected
    assert written(*members, by_key=True) == written(*members)


APART = ("0.jpg", "1.jpg", "2.1.jpg", "0.txt", "1.txt", "2.1.txt", "3.txt")


def test_members_of_a_sample_that_stand_apart_are_joined_by_key(written):
    """Every caption of such a tar was lost in silence."""
    with pytest.raises(Apart):
        written(*APART)
    assert written(*APART, by_key=True) == [
        ("t/0.jpg", "of 0.txt", None),
        ("t/1.jpg", "of 1.txt", None),
        ("t/2.1.jpg", "of 2.1.txt", None),
        ("t/3.txt", "of 3.txt", "missing_file"),
    ]


def test_texts_under_other_names_that_stand_apart_are_joined_by_key(written):
    members = ("0.jpg", "1.left.jpg", "0.caption.txt", "1.caption.txt")
    with pytest.raises(Apart):
        written(*members)
    assert written(*members, by_key=True) == [
        ("t/0.jpg", "of 0.caption.txt", None),
        ("t/1.left.jpg", "of 1.caption.txt", None),
    ]


def test_two_samples_of_one_key_that_stand_apart_have_a_row_each(written):
    members = ("0.jpg", "0.txt", "1.jpg", "0.jpg", "0.txt")
    with pytest.raises(Apart):
        written(*members)
    assert [(url, fault) for url, _, fault in written(*members, by_key=True)] == [
        ("t/0.jpg", None),
        ("t/0.jpg", "missing_file"),
        ("t/1.jpg", None),
    ]


def test_a_cut_tar_is_joined_as_far_as_it_goes(written, tmp_path):
    """0.jpg, 1.jpg and 0.txt are three times 1024 bytes; the fourth member is cut, and 1.jpg lacks its text."""
    with pytest.raises(Apart):
        written("0.jpg", "1.jpg", "0.txt", "1.txt")
    cut(tmp_path / "0.tar", 3 * 1024 + 100)
    found = sample_rows(str(tmp_path / "0.tar"), "t", MAPPING, by_key=True)
    assert [(row["key"], row.get("text"), row["fault"]) for row in found] == [
        ("0", "of 0.txt", None),
        (None, None, "broken_tar"),
    ]


def test_samples_that_are_known_have_no_row_but_what_comes_again_has(tmp_path):
    write_members(tmp_path / "0.tar", "0.jpg", "0.txt", "v.1.jpg", "v.1.txt", "v.2.jpg", "1.jpg", "0.jpg", "0.txt")
    for by_key in (False, True):
        seen = set()
        found = sample_rows(str(tmp_path / "0.tar"), "t", MAPPING, by_key=by_key, but=("0", "v.1", "9"), seen=seen)
        assert sorted(row["url"] for row in found) == ["t/0.jpg", "t/1.jpg", "t/v.2.jpg"]
        assert seen == {("0", "jpg"), ("0", "txt"), ("v.1", "jpg"), ("v.1", "txt")}


def test_names_that_all_begin_alike_are_not_one_sample(written, monkeypatch):
    """v1.000001.jpg: WebDataset takes the whole tar for one sample; no more than HELD_PARTS names are held of one."""
    monkeypatch.setattr(module, "HELD_PARTS", 3)
    members = [f"v1.{number}.{ending}" for number in range(10) for ending in ("jpg", "txt")]
    expected = [(f"t/v1.{number}.jpg", f"of v1.{number}.txt", None) for number in range(10)]
    assert written(*members) == expected
    apart = [f"v1.{number}.{ending}" for ending in ("jpg", "txt") for number in range(10)]
    with pytest.raises(Apart):
        written(*apart)
    assert written(*apart, by_key=True) == expected


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"json": b'{"caption": ""}', "txt": b"filled"}, "filled"),
        ({"json": b'{"caption": " \\n"}', "txt": b"filled"}, "filled"),
        ({"json": b'{"caption": "\\ufeff"}', "txt": b"filled"}, "filled"),
        ({"json": b'{"caption": [""]}', "txt": b"filled"}, "filled"),
        ({"json": b'{"caption": null}', "txt": b""}, ""),
        ({"json": b'{"caption": "said"}', "txt": b"other"}, "said"),
        ({"json": b'{"caption": "said"}', "txt": b""}, "said"),
        ({"json": b'{"caption": " "}', "txt": b""}, " "),
        ({"json": b'{"caption": "said", "similarity": ' + b"1" * 5000 + b"}"}, "said"),
    ],
)
def test_a_caption_that_holds_something_is_taken(tmp_path, members, text):
    write_shard(tmp_path / "0.tar", [("0", {"jpg": b"j", **members})])
    assert [row["text"] for row in rows(tmp_path / "0.tar")] == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("in UTF-16".encode("utf-16"), "in UTF-16"),
        (b"as it is\n", "as it is\n"),
    ],
)
def test_a_text_has_no_byte_order_mark(tmp_path, text, expected):
    write_shard(tmp_path / "0.tar", [("0", {"jpg": b"j", "txt": text})])
    assert [row["text"] for row in rows(tmp_path / "0.tar")] == [expected]
    note = b'\xef\xbb\xbf{"caption": ["first", "second"]}'
    write_shard(tmp_path / "0.tar", [("0", {"jpg": b"j", "json": note})])
    assert [row["text"] for row in rows(tmp_path / "0.tar")] == ["first"]


def test_the_text_of_a_name_that_is_not_utf8_goes_to_no_other_picture(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as file:
        for name in ("n\xe9.txt", "n\xe8.jpg", "n\xe8.txt"):
            info = tarfile.TarInfo(name)
            info.size = 2
            file.addfile(info, io.BytesIO(name[:2].encode()[-2:]))
    found = [(row["key"], row["text"], row["fault"]) for row in rows(tmp_path / "0.tar")]
    assert found == [("n\ufffdE9", "\xe9", "missing_file"), ("n\ufffdE8", "\xe8", None)]


def test_further_pictures_of_one_name_have_a_row_each(written):
    """k.png and k.webp were in no count: the picture of a name is the first one."""
    members = ("k.jpeg", "k.png", "k.webp", "k.txt", "m.left.gif", "m.left.jpg", "m.right.jpg", "n.1.bmp")
    expected = [
        ("t/k.jpeg", "of k.txt", None),
        ("t/k.png", None, "missing_file"),
        ("t/k.webp", None, "missing_file"),
        ("t/m.left.gif", None, None),
        ("t/m.left.jpg", None, "missing_file"),
        ("t/m.right.jpg", None, None),
        ("t/n.1.bmp", None, None),
    ]
    assert written(*members) == expected
    with pytest.raises(Apart):
        written(*members, "k.bmp")
    assert written(*members, "k.bmp", by_key=True) == [
        *expected[:3],
        ("t/k.bmp", None, "missing_file"),
        *expected[3:],
    ]


def test_samples_that_are_only_called_as_macos_does_have_rows(written):
    """They were passed over without a word."""
    assert written("._real.jpg", "._real.txt", "__MACOSX/q.jpg", "__MACOSX/q.txt") == [
        ("t/._real.jpg", "of ._real.txt", None),
        ("t/__MACOSX/q.jpg", "of __MACOSX/q.txt", None),
    ]
