"""Samples and pictures of tars: in their order, what a sample says, and everything before a damage."""

import tarfile

import pytest

from manifests.files import FormatError
from manifests.shards import write_shard
from pipeline.inputs import tars as module
from pipeline.inputs.tars import BrokenTar, content, members, opened, pictures, sample_rows

MAPPING = {"url": "url", "text": "caption", "similarity": "similarity"}
SAMPLES = [
    ("k0", {"jpg": b"zero", "json": b'{"url": "http://a.test/0", "caption": "said", "similarity": 0.5}'}),
    ("k1", {"txt": b"caf\xe9", "webp": b"one"}),
    ("k2", {"txt": b"no picture"}),
    ("k3", {"png": b"", "json": b"no JSON"}),
]


@pytest.fixture
def tar(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    return tmp_path / "0.tar"


def cut(tar, count):
    tar.write_bytes(tar.read_bytes()[:count])


def rows(tar, name="in/0.tar"):
    return list(sample_rows(str(tar), name, MAPPING))


def test_a_row_for_every_sample_with_a_picture(tar):
    said = {"similarity": None, "fault": None}
    assert rows(tar) == [
        {"url": "http://a.test/0", "text": "said", "similarity": 0.5, "key": "k0", "fault": None},
        {"url": "in/0.tar/k1.webp", "text": "caf\ufffd", "key": "k1", **said},
        {"url": "in/0.tar/k3.png", "text": None, "key": "k3", **said},
    ]


def test_a_note_that_is_too_large_counts_as_not_there(tar, monkeypatch):
    monkeypatch.setattr(module, "MAX_NOTE", 7)
    assert [row["url"] for row in rows(tar)] == ["in/0.tar/k0.jpg", "in/0.tar/k1.webp", "in/0.tar/k3.png"]


def test_where_the_tar_is_cut_a_last_row_says_so(tar):
    """A member is a header of 512 bytes and its content filled up to 512: k0's two members are 2048 bytes."""
    cut(tar, 2048 + 1024 + 100)
    assert [(row["key"], row["fault"]) for row in rows(tar)] == [("k0", None), (None, "broken_tar")]
    cut(tar, 2048)  # between two samples: only the end mark is missing
    assert [(row["key"], row["fault"]) for row in rows(tar)] == [("k0", None), (None, "broken_tar")]


def test_an_error_names_the_tar_and_what_is_wrong(tar):
    cut(tar, 2048)
    file, raw = opened(str(tar))
    with file, raw, pytest.raises(FormatError) as caught:
        list(members(file, raw))
    assert str(caught.value) == "0.tar: no end mark at byte 2048"
    assert (caught.value.file, caught.value.cause) == ("0.tar", "no end mark at byte 2048")
    tar.write_bytes(b"\xff" * 1024)
    with pytest.raises(BrokenTar, match=r"^0\.tar: ."):
        opened(str(tar))
    with pytest.raises(FileNotFoundError):
        opened(str(tar.with_name("none.tar")))


def test_members_are_named_by_folder_and_key_and_their_ending_is_small(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for name in ("./a/b.c/k.seg.JPG", "k"):
            file.addfile(tarfile.TarInfo(name))
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
    tar, raw = opened(str(tmp_path / "0.tar"))
    with tar, raw:
        assert [(key, ending) for key, ending, _ in members(tar, raw)] == [("a/b.c/k", "seg.jpg"), ("k", "")]


def test_a_members_bytes_or_that_the_tar_ends_within_them(tar):
    for length, expected in ((514, None), (1024, b"zero")):
        write_shard(tar, SAMPLES)
        cut(tar, length)
        file, raw = opened(str(tar))
        with file, raw:
            _, ending, info = next(members(file, raw))
            assert (ending, info.size) == ("jpg", 4)
            if expected is None:
                with pytest.raises(BrokenTar, match=r"^0\.tar: "):
                    content(file, info)
            else:
                assert content(file, info) == expected


def test_wanted_pictures_come_once_each_with_their_reasons(tar):
    found = list(pictures(str(tar), ["k3", "k0", "k2", "none"], 100))
    assert found == [("k0", b"zero", ""), ("k3", None, "empty_body")]
    assert list(pictures(str(tar), ["k0", "k1"], 3)) == [("k0", None, "too_large"), ("k1", b"one", "")]


def test_pictures_before_the_damage_are_given(tar):
    cut(tar, 2048 + 1024 + 512)  # k1's txt is whole, of its picture the header is left
    taken = pictures(str(tar), ["k0", "k1"], 100)
    assert next(taken) == ("k0", b"zero", "")
    with pytest.raises(BrokenTar):
        next(taken)
