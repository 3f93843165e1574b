"""A damaged tar is described member by member, with the byte; what is whole in it is still read."""

import hashlib

import pytest

from manifests.checksums import Measured
from manifests.damage import Piece, explain, scan, tar_faults
from manifests.shards import Index, index_path, write_shard

SIZE = 5 * 512 + 512 + 1024
"""Two samples of three members: a.jpg 0, a.txt 1024, b.jpg 2048, each a header and a block of data, then two zero
blocks."""


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "0.tar"
    write_shard(path, [("a", {"jpg": b"first", "txt": b"words"}), ("b", {"jpg": b"second"})], index=True)
    data = path.read_bytes()
    assert [data.find(text) for text in (b"first", b"words", b"second")] == [512, 1536, 2560]
    path.write_bytes(data[:SIZE])  # tarfile fills up with zeros to 10240
    return path


@pytest.fixture
def index(tar):
    return Index.read(index_path(tar))


def change(path, byte, data):
    whole = bytearray(path.read_bytes())
    whole[byte : byte + len(data)] = data
    path.write_bytes(whole)


def test_a_whole_tar_has_no_faults(tar, index):
    pictures = {"a.jpg": hashlib.sha256(b"first").hexdigest(), "b.jpg": hashlib.sha256(b"second").hexdigest()}
    assert list(tar_faults(tar)) == list(tar_faults(tar, index)) == list(tar_faults(tar, None, pictures)) == []
    assert list(scan(tar)) == [
        Piece(0, "a.jpg", b"first"),
        Piece(1024, "a.txt", b"words"),
        Piece(2048, "b.jpg", b"second"),
    ]


@pytest.mark.parametrize(
    ("byte", "data", "with_index", "alone"),
    [
        (1536, b"W", ["member a.txt at byte 1536: its CRC-32 is not the index's"], []),
        (1545, b"x", ["padding of member a.txt is not zero"], ["padding of member a.txt is not zero"]),
        (
            1024,
            b"x",
            ["header of member a.txt at byte 1024 is damaged"],
            ["a damaged header at byte 1024, where a member's header belongs"],
        ),
        (
            1024,
            bytes(512),
            ["header of member a.txt at byte 1024 is damaged"],
            ["zeros at byte 1024, where a member's header belongs"],
        ),
        (
            3072,
            b"x",
            ["no end-of-archive blocks at byte 3072"],
            [
                "a damaged header at byte 3072, where a member's header belongs",
            ],
        ),
    ],
)
def test_changed_bytes_are_named(tar, index, byte, data, with_index, alone):
    change(tar, byte, data)
    assert list(tar_faults(tar, index)) == with_index
    assert list(tar_faults(tar)) == alone


def test_what_stands_behind_a_damaged_header_is_read(tar):
    change(tar, 1024, b"x")
    assert [piece.name for piece in scan(tar) if piece.name] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("size", "with_index", "alone"),
    [
        (0, "cut at byte 0, between samples", "cut at byte 0, between members"),
        (100, "cut at byte 100, in the header of a.jpg", "cut at byte 100, in a header"),
        (514, "cut at byte 514, in the body of a.jpg", "cut at byte 514, in the body of a.jpg"),
        (1024, "cut at byte 1024, between members of sample a", "cut at byte 1024, between members"),
        (2048, "cut at byte 2048, between samples", "cut at byte 2048, between members"),
    ],
)
def test_a_cut_says_where_it_fell(tar, index, size, with_index, alone):
    tar.write_bytes(tar.read_bytes()[:size])
    assert list(tar_faults(tar, index)) == [with_index]
    assert list(tar_faults(tar)) == [alone]


def test_the_end_of_the_archive(tar, index):
    whole = tar.read_bytes()
    tar.write_bytes(whole[:3584])
    assert list(tar_faults(tar, index)) == ["cut at byte 3584, in the end-of-archive blocks"]
    tar.write_bytes(whole + bytes(700))
    assert list(tar_faults(tar, index)) == []
    tar.write_bytes(whole + b"more")
    assert list(tar_faults(tar, index)) == ["bytes other than zero after the end-of-archive blocks at byte 3072"]


def test_pictures_are_held_against_their_sha256(tar):
    pictures = {"a.jpg": "00", "z.jpg": "11", "c.jpg": "22"}
    assert list(tar_faults(tar, None, pictures)) == [
        "member a.jpg at byte 512: not the recorded sha256",
        "2 members are not in it, such as c.jpg",
    ]


def test_a_file_is_explained_by_its_size_and_sha256(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"four")
    expected = Measured("a" * 64, 4)
    digests = f"sha256 {'b' * 16}…, {'a' * 16}… wanted"
    assert explain(path, expected, Measured("b" * 64, 4)) == digests
    assert explain(path, expected, Measured("b" * 64, 3)) == f"cut: 3 bytes, 4 wanted; {digests}"
    assert explain(path, expected, Measured("b" * 64, 5)) == f"5 bytes, 4 wanted; {digests}"
    assert explain(path, expected, Measured("b" * 64, 0)) == "empty, 4 bytes wanted"
    assert explain(path, expected, Measured(error="no permission")) == "cannot be read (no permission)"
    path.write_bytes(bytes(4))
    assert explain(path, expected, Measured("b" * 64, 4)) == f"zeros alone; {digests}"


def test_three_faults_of_a_tar_are_named_and_the_others_counted(tar, index):
    for byte in (512, 1536, 2560):
        change(tar, byte, b"-" * 9)
    says = explain(tar, Measured("a" * 64, SIZE), Measured("b" * 64, SIZE), index)
    assert says == "; ".join(
        [
            f"sha256 {'b' * 16}…, {'a' * 16}… wanted",
            "member a.jpg at byte 512: its CRC-32 is not the index's",
            "padding of member a.jpg is not zero",
            "member a.txt at byte 1536: its CRC-32 is not the index's",
            "and 3 more",
        ]
    )
