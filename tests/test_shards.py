"""Tar shards: the same bytes for the same members, an index that opens them anywhere, a reader that sees cuts."""

import tarfile
import zlib

import pytest

from manifests.files import read_json
from manifests.shards import ShardError, index_path, read_shard, verify_shard, write_shard

SAMPLES = [(f"k{i:02d}", {"jpg": bytes([i]) * 700 * (i + 1), "codes.npy": b"c" * i, "json": b"{}"}) for i in range(20)]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "00000.tar"
    assert write_shard(path, SAMPLES, index=True) == 20
    return path


def test_round_trip_in_order(shard):
    assert list(read_shard(shard)) == SAMPLES
    assert verify_shard(shard) == 20


def test_bytes_depend_on_members_alone(shard, tmp_path):
    other = tmp_path / "elsewhere" / "00000.tar"
    write_shard(other, [(key, dict(reversed(parts.items()))) for key, parts in SAMPLES])
    assert other.read_bytes() == shard.read_bytes()
    with tarfile.open(shard) as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar} == {(0, 0, 0, 0o644, "")}


def test_the_index_opens_any_member(shard):
    data, index = shard.read_bytes(), read_json(index_path(shard))
    assert [member[0] for member in index["members"][:3]] == ["k00.codes.npy", "k00.jpg", "k00.json"]
    for name, offset, length, crc in index["members"]:
        key, _, extension = name.partition(".")
        assert data[offset : offset + length] == dict(SAMPLES)[key][extension]
        assert zlib.crc32(data[offset : offset + length]) == crc


def test_no_cut_before_the_end_mark_is_silent(shard):
    data, index = shard.read_bytes(), read_json(index_path(shard))
    last = index["members"][-1]
    end = last[1] + -(-last[2] // 512) * 512 + 1024
    for cut in range(0, end, 256):
        shard.write_bytes(data[:cut])
        with pytest.raises(ShardError):
            list(read_shard(shard))
        with pytest.raises(ShardError):
            verify_shard(shard)


def test_a_flipped_bit_is_found(shard):
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="sha256"):
        verify_shard(shard)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "x" * 61])
def test_keys_that_webdataset_would_split(key, tmp_path):
    with pytest.raises(ValueError, match="sample key"):
        write_shard(tmp_path / "x.tar", [(key, {"txt": b""})])
