"""Members and pictures of tars: in their order, and everything before a damage."""

import io
import tarfile

import pytest

from manifests.files import FormatError
from manifests.shards import write_shard
from pipeline.inputs.tars import BrokenTar, content, entries, opened, pictures, split_name
from tests.support.tar_files import SAMPLES, cut, write_members


@pytest.fixture
def tar(tmp_path):
    write_shard(tmp_path / "0.tar", SAMPLES)
    return tmp_path / "0.tar"


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
        ("caf\udce9.png", ("caf\ufffdE9", "caf\ufffdE9", "png")),  # bytes that are not UTF-8
    ],
)
def test_a_name_is_split_at_its_first_and_last_dot(name, expected):
    assert split_name(name) == expected


OF_MACOS = {
    "._0.jpg": b"\0\x05\x16\x07\0\x02\0\0Mac OS X",
    "__MACOSX/a/._1.jpg": b"\0\x05\x16\0\0\x02\0\0",
    "a/.DS_Store": b"\0\0\0\1Bud1\0\0",
}


def test_members_are_files_links_and_devices_and_none_is_held(tmp_path):
    names = ("0.jpg", *OF_MACOS, "_0.jpg", "a/__0.jpg")
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for name in names:
            info = tarfile.TarInfo(name)
            data = OF_MACOS.get(name, b"")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for name, kind in (
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
            ("a label", b"V"),
            ("a list of a folder", b"D"),
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


def test_names_that_are_not_utf8_stay_apart_and_old_tables_find_their_picture(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as file:
        for name in ("\xe8.jpg", "\xe9.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            file.addfile(info, io.BytesIO(name[:1].encode("latin-1")))
    path = str(tmp_path / "0.tar")
    assert list(pictures(path, ["\ufffdE9", "\ufffdE8"], 9)) == [("\ufffdE8", b"\xe8", ""), ("\ufffdE9", b"\xe9", "")]
    assert list(pictures(path, ["\ufffd"], 9)) == [("\ufffd", b"\xe8", "")]  # what an earlier version called the first


def test_tars_behind_the_end_mark_are_read_on(tar):
    whole = tar.read_bytes()
    tar.write_bytes(whole + b"\0" * 512 * 5 + whole)
    file, raw = opened(str(tar))
    with file, raw:
        assert [info.name for info in entries(file, raw)].count("k0.jpg") == 2
        assert raw.tell() == 2 * len(whole) + 512 * 5


@pytest.mark.parametrize("behind", [b"rubbish".ljust(512, b"."), b"short"])
def test_what_follows_the_end_mark_and_is_no_tar_is_a_damage(tar, behind):
    tar.write_bytes(tar.read_bytes() + behind)
    file, raw = opened(str(tar))
    with file, raw, pytest.raises(BrokenTar, match="no header behind the zeros"):
        list(entries(file, raw))


def test_a_header_of_zeros_in_the_middle_is_a_damage(tar):
    """k0's picture and note take the first 2048 bytes; the next header is lost."""
    data = bytearray(tar.read_bytes())
    data[2048 : 2048 + 512] = bytes(512)
    tar.write_bytes(data)
    file, raw = opened(str(tar))
    found = entries(file, raw)
    with file, raw:
        assert [next(found).name, next(found).name] == ["k0.jpg", "k0.json"]
        with pytest.raises(BrokenTar, match="no end mark at byte 2048"):
            next(found)


def header(name, size=0, kind=tarfile.REGTYPE, form=tarfile.USTAR_FORMAT):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(form)


def member(name):
    return header(name, 2) + b"ab".ljust(512, b"\0")


GLOBAL = header("pax_global_header", 20, tarfile.XGLTYPE) + b"20 comment=of a tar\n".ljust(512, b"\0")
END = bytes(1024)


@pytest.mark.parametrize(
    "data",
    [
        GLOBAL + member("0.jpg") + member("1.jpg") + END,
        member("0.jpg") + GLOBAL + member("1.jpg") + END,
        member("0.jpg") + member("1.jpg") + GLOBAL + END,
        member("0.jpg") + member("1.jpg") + GLOBAL + GLOBAL + END,
        GLOBAL + member("0.jpg") + END + GLOBAL + member("1.jpg") + GLOBAL + END,
    ],
)
def test_a_header_of_the_whole_tar_may_stand_anywhere(tmp_path, data):
    """As the last one it was taken for damage."""
    (tmp_path / "0.tar").write_bytes(data)
    assert [(key, body) for key, body, _ in pictures(str(tmp_path / "0.tar"), ["0", "1", "2"], 10)] == [
        ("0", b"ab"),
        ("1", b"ab"),
    ]


def test_a_header_of_the_whole_tar_hides_no_damage(tmp_path):
    for data in (member("0.jpg") + GLOBAL, member("0.jpg") + GLOBAL + b"x" * 512 + END, member("0.jpg") + GLOBAL[:512]):
        (tmp_path / "0.tar").write_bytes(data)
        with pytest.raises(BrokenTar):
            list(pictures(str(tmp_path / "0.tar"), ["0", "1"], 10))


def test_times_in_a_header_are_no_folder(tmp_path):
    """GNU tar -g writes times where other kinds have the first part of a name: no key was that of its table."""
    data = bytearray(member("0.jpg"))
    data[257:265], data[345:369] = b"ustar  \0", b"15302113665\0" * 2
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    (tmp_path / "0.tar").write_bytes(data + END)
    tar, raw = opened(str(tmp_path / "0.tar"))
    with tar, raw:
        assert [info.name for info in entries(tar, raw)] == ["0.jpg"]
    long = f"{'f' * 90}/{'n' * 90}.jpg"
    (tmp_path / "0.tar").write_bytes(member(long) + END)  # a name in two parts
    tar, raw = opened(str(tmp_path / "0.tar"))
    with tar, raw:
        assert [info.name for info in entries(tar, raw)] == [long]


def test_what_is_only_called_as_macos_does_is_a_member(tmp_path):
    """Names alone passed over pictures and texts without a word."""
    names = ["._real.jpg", "._real.txt", "__MACOSX/q.jpg", "a/._", "b/.DS_Store", "._none.jpg"]
    write_members(tmp_path / "0.tar", *names[:-1], (names[-1], tarfile.SYMTYPE))
    tar, raw = opened(str(tmp_path / "0.tar"))
    with tar, raw:
        assert [info.name for info in entries(tar, raw)] == names
    found = pictures(str(tmp_path / "0.tar"), ["._real", "__MACOSX/q"], 99)
    assert list(found) == [("._real", b"of ._real.jpg", ""), ("__MACOSX/q", b"of __MACOSX/q.jpg", "")]
