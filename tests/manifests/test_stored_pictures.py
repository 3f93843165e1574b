"""Pictures of a shard of pairs are found by the tar's headers, and a tar that was cut or damaged says so."""

import io
import tarfile

import pyarrow as pa
import pytest

from manifests.files import write_table
from manifests.shards import ShardError, write_shard
from manifests.stored_pictures import may_hold, stored_keys, stored_pictures
from tests.support.stored_runs import memory_root, upload

KEYS = ["b" * 32, "a" * 32, "c" * 32]
PAIRS = [(key, {"jpg": key[:1].encode() * 700, "json": b"{}", "txt": b"a cat"}) for key in KEYS]


@pytest.fixture
def tar(tmp_path):
    write_shard(tmp_path / "00000.tar", PAIRS)
    return tmp_path / "00000.tar"


def test_pictures_come_in_the_tars_order_whatever_the_order_of_the_question(tar):
    assert [(key, sample) for key, sample in stored_pictures(tar, ["c" * 32, "b" * 32, "f" * 32])] == [
        ("b" * 32, {"jpg": b"b" * 700}),
        ("c" * 32, {"jpg": b"c" * 700}),
    ]
    assert list(stored_pictures(tar, ())) == []
    assert stored_keys(tar) == KEYS


def test_parts_beside_the_picture_come_where_they_are_asked_for_and_there(tmp_path, tar):
    assert list(stored_pictures(tar, parts=("jpg", "json", "txt"))) == PAIRS
    write_shard(tmp_path / "1.tar", [("a", {"txt": b"no picture"}), ("b", {"jpg": b"x"})])
    assert list(stored_pictures(tmp_path / "1.tar")) == [("a", {}), ("b", {"jpg": b"x"})]


def test_an_empty_shard_has_no_picture_and_an_empty_file_is_no_shard(tmp_path):
    write_shard(tmp_path / "0.tar", [])
    assert list(stored_pictures(tmp_path / "0.tar")) == []
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="was cut"):
        list(stored_pictures(tmp_path / "0.tar"))


def test_no_cut_before_the_end_mark_is_silent(tar):
    data = tar.read_bytes()
    end = 3 * (3 * 512 + 1024 + 512 + 512) + 1024  # per pair three headers, 700 bytes in two blocks, two of one block
    assert not any(data[end - 1024 :])
    for cut in range(0, end, 256):
        tar.write_bytes(data[:cut])
        with pytest.raises(ShardError):
            list(stored_pictures(tar, ["a" * 32]))


@pytest.mark.parametrize("place", [3, 1536 + 3, 2560 + 134])  # names of members 1 and 2, last digit of the length of 3
def test_a_damaged_header_does_not_hide_the_pairs_behind_it(tar, place):
    data = bytearray(tar.read_bytes())
    data[place] ^= 9
    tar.write_bytes(data)
    with pytest.raises(ShardError):
        list(stored_pictures(tar, ["c" * 32]))


def test_a_tar_with_headers_of_another_kind_is_read_too(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in {"é.jpg": b"one", "b.jpg": b"two"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert list(stored_pictures(tmp_path / "x.tar")) == [("é", {"jpg": b"one"}), ("b", {"jpg": b"two"})]


def test_of_a_store_the_table_beside_a_tar_says_whether_it_is_worth_fetching(tmp_path, tar):
    assert may_hold(tar, ["f" * 32])  # on a disk its headers are read as soon
    stored = upload(tmp_path, memory_root()) / "00000.tar"
    assert list(stored_pictures(stored, KEYS)) == list(stored_pictures(tar, KEYS))
    assert may_hold(stored, ["f" * 32])  # there is no table
    write_table(stored.with_suffix(".parquet"), pa.table({"key": KEYS}))
    assert not may_hold(stored, ["f" * 32])
    assert may_hold(stored, ["f" * 32, KEYS[1]])
