"""Tar shards: the same bytes for the same members, an index that opens them anywhere, a reader that sees cuts."""

import io
import tarfile
import zlib

import pytest

from manifests.files import FormatError, read_json
from manifests.shards import (
    Index,
    ShardError,
    ShardReader,
    index_path,
    member_places,
    open_member,
    read_shard,
    verify_shard,
    write_shard,
)

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


def test_any_member_is_read_at_once_and_a_reader_resumes(shard):
    with ShardReader(shard) as reader:
        assert (len(reader), reader.keys) == (20, [key for key, _ in SAMPLES])
        assert reader.read("k07") == dict(SAMPLES)["k07"]
        assert reader.member("k11.codes.npy") == b"c" * 11
        assert list(reader.samples(start=13)) == SAMPLES[13:]
        with pytest.raises(KeyError, match="no sample 'k20'"):
            reader.read("k20")
    assert open_member(shard, "k03.json") == b"{}"
    with pytest.raises(KeyError, match=r"no member 'k03\.txt'"):
        open_member(shard, "k03.txt")


def test_random_access_checks_what_it_reads(shard):
    index = Index.read(index_path(shard))
    hit = next(member for member in index.members if member.name == "k05.jpg")
    data = bytearray(shard.read_bytes())
    data[hit.offset + 3] ^= 4
    shard.write_bytes(data[: index.members[-1].offset])
    assert open_member(shard, "k04.jpg") == dict(SAMPLES)["k04"]["jpg"]
    with pytest.raises(ShardError, match=rf"member k05\.jpg at byte {hit.offset} is damaged"):
        open_member(shard, "k05.jpg")
    with pytest.raises(ShardError, match=r"cut in member k19\.json"):
        open_member(shard, "k19.json")


def test_an_edited_index_is_no_index(shard):
    path = index_path(shard)
    path.write_bytes(path.read_bytes().replace(b'"samples": 20', b'"samples": 21'))
    with pytest.raises(FormatError, match="its seal says"):
        Index.read(path)


@pytest.mark.parametrize("name", ["a.txt", "f" * 120 + ".txt"])  # the second takes a header of another kind
def test_headers_alone_say_where_members_are(tmp_path, name):
    members = {"0.txt": b"", "1.json": b"x" * 512, name: b"y" * 700, "2.txt": b"z"}
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT if len(name) > 100 else tarfile.USTAR_FORMAT
    ) as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = (tmp_path / "x.tar").read_bytes()
    assert {found: data[at : at + length] for found, at, length in member_places(tmp_path / "x.tar")} == members
    (tmp_path / "y.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ShardError, match="damaged"):
        list(member_places(tmp_path / "y.tar"))
