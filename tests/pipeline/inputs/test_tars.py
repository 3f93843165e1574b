"""Members and pictures of tars: in their order, and everything before a damage."""

import tarfile

import pytest

from manifests.files import FormatError
from manifests.shards import write_shard
from pipeline.inputs.tars import BrokenTar, content, entries, opened, pictures, split_name

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


def test_an_error_names_the_tar_and_what_is_wrong(tar):
    cut(tar, 2048)
    file, raw = opened(str(tar))
    with file, raw, pytest.raises(FormatError) as caught:
        list(entries(file, raw))
    assert str(caught.value) == "0.tar: no end mark at byte 2048"
    assert (caught.value.file, caught.value.cause) == ("0.tar", "no end mark at byte 2048")
    tar.write_bytes(b"\xff" * 1024)
    with pytest.raises(BrokenTar, match=r"^0\.tar: ."):
        opened(str(tar))
    with pytest.raises(FileNotFoundError):
        opened(str(tar.with_name("none.tar")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./a/b.c/k.seg.JPG", ("a/b.c/k", "a/b.c/k.seg", "jpg")),
        ("k", ("k", "k", "")),
        ("trip 2.0 a.jpg", ("trip 2", "trip 2.0 a", "jpg")),
        (".hidden", ("", "", "hidden")),
        ("caf\udce9.png", ("caf\ufffd", "caf\ufffd", "png")),  # bytes that are not UTF-8
    ],
)
def test_a_name_is_split_at_its_first_and_last_dot(name, expected):
    assert split_name(name) == expected


def test_members_are_files_links_and_devices_and_none_is_held(tmp_path):
    names = ("0.jpg", "._0.jpg", "a/.DS_Store", "__MACOSX/0.jpg", "__index__.json", "_0.jpg", "a/__0.jpg")
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))
        for name, kind in (
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            file.addfile(info)
    tar, raw = opened(str(tmp_path / "0.tar"))
    with tar, raw:
        assert [info.name for info in entries(tar, raw)] == ["0.jpg", "_0.jpg", "a/__0.jpg", "link.jpg", "pipe.jpg"]
        assert vars(tar)["members"] == []


def test_a_members_bytes_or_that_the_tar_ends_within_them(tar):
    for length, expected in ((514, None), (1024, b"zero")):
        write_shard(tar, SAMPLES)
        cut(tar, length)
        file, raw = opened(str(tar))
        with file, raw:
            info = next(entries(file, raw))
            assert (info.name, info.size) == ("k0.jpg", 4)
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


def test_a_picture_is_known_by_its_name_up_to_the_last_dot(tmp_path):
    write_shard(tmp_path / "0.tar", [("m", {"seg.png": b"mask", "jpg": b"m"}), ("trip 2", {"0 a.jpg": b"trip"})])
    found = list(pictures(str(tmp_path / "0.tar"), ["m", "trip 2.0 a", "trip 2"], 100))
    assert found == [("m", b"m", ""), ("trip 2.0 a", b"trip", "")]
