"""The packed index: where each sample lies, of all shards in one table; stale ones are refused."""

import gc
import zlib

import numpy as np
import pytest

from manifests.files import FormatError
from manifests.shards import ShardReader, write_shard
from tests.support.code_shards import write_codes
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.packed_index import NAME, PackedIndex, open_packed_index, unlike, write_packed_index
from tokenize_shards.samples import LoaderError, data_digest, find_shards


@pytest.fixture
def folder(tmp_path):
    write_codes(tmp_path, (5, 0, 7))
    return tmp_path / "codes" / "pretrain"


def test_each_member_of_each_sample_lies_where_it_says(folder):
    write_packed_index(folder)
    index = open_packed_index(folder)
    assert [shard.samples for shard in index.shards] == [5, 0, 7]
    assert (index.samples, index.digest) == (12, data_digest(find_shards(folder.parent, "pretrain")))
    for number, shard in enumerate(index.shards):
        rows = index.rows(number)
        with ShardReader(shard.path) as reader:
            assert [f"{first:016x}{second:016x}" for first, second in rows.uid_N2.tolist()] == reader.keys
            data = shard.path.read_bytes()
            for row, key in enumerate(reader.keys):
                for member in ("codes.npy", "json"):
                    place = rows.places[member]
                    start, length = int(place.offset_N[row]), int(place.length_N[row])
                    assert data[start : start + length] == reader.read(key)[member]
                    assert zlib.crc32(data[start : start + length]) == place.crc32_N[row]
                assert rows.places["t5.npy"].length_N[row] == 0
    every = list(index.uids())
    assert [number for number, _ in every] == [0, 1, 2]
    assert np.array_equal(every[2][1], index.rows(2).uid_N2)


def test_the_bytes_depend_on_the_shards_alone(folder, tmp_path):
    first = write_packed_index(folder).read_bytes()
    write_codes(tmp_path / "again", (5, 0, 7))
    assert write_packed_index(tmp_path / "again" / "codes" / "pretrain").read_bytes() == first


def test_of_a_store_it_is_that_of_a_disk(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    write_packed_index(folder)
    stored = upload(tmp_path, memory_root()) / "codes" / "pretrain"
    index, here = open_packed_index(stored), open_packed_index(folder)
    assert index.digest == here.digest
    assert np.array_equal(index.rows(2).places["json"].offset_N, here.rows(2).places["json"].offset_N)


def test_one_that_is_stale_or_damaged_is_refused(folder, tmp_path):
    write_packed_index(folder)
    write_codes(tmp_path, (5, 0, 7, 1))
    with pytest.raises(LoaderError, match=r"it is not of the shards that are there: 00003\.tar is new; run"):
        open_packed_index(folder)
    (folder / "00003.tar").unlink()
    (folder / "00002.tar").write_bytes((folder / "00002.tar").read_bytes()[:-512])
    with pytest.raises(LoaderError, match=r"00002\.tar is a damaged shard: \d+ bytes, the index says \d+"):
        open_packed_index(folder)
    (folder / NAME).write_bytes(b"PAR1junk")
    with pytest.raises(LoaderError, match="not a Parquet table"):
        open_packed_index(folder)


def test_a_run_of_before_gets_one_of_its_own_that_goes_with_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    index = open_packed_index(folder)
    assert index.is_own
    assert index.shards[2].path == folder / "00002.tar"
    assert len(index.rows(2)) == 7
    assert not (folder / NAME).exists()
    assert list((tmp_path / "scratch").glob("index-*"))
    del index
    gc.collect()
    assert not list((tmp_path / "scratch").glob("index-*"))


def test_names_that_are_no_uids_are_refused(tmp_path):
    write_shard(tmp_path / "00000.tar", [("cat", {"json": b"{}"})], index=True)
    with pytest.raises(FormatError, match="'cat'"):
        write_packed_index(tmp_path)


def test_rows_of_others_than_the_shards_own_are_told(folder, tmp_path):
    index = PackedIndex(write_packed_index(folder))
    assert unlike(index) == ""
    write_codes(tmp_path, (5, 0, 7), crops=2)  # more codes of the same samples
    assert unlike(index) == "what it says of 00000.tar is not what 00000.index.json says"


def test_one_that_is_written_anew_is_not_read_by_the_footer_of_before(folder, tmp_path):
    index = PackedIndex(write_packed_index(folder))
    write_codes(tmp_path, (5, 0, 9))
    write_packed_index(folder)
    with pytest.raises(FormatError, match="written anew since it was opened"):
        index.rows(0)


def test_another_table_is_refused(folder, tmp_path):
    import pyarrow as pa

    from manifests.files import write_table

    write_table(tmp_path / "t.parquet", pa.table({"uid": [b"0" * 16]}))
    with pytest.raises(FormatError, match="not a packed index"):
        PackedIndex(tmp_path / "t.parquet")


def test_a_shard_that_is_gone_is_missed_by_its_own_index(folder):
    """Without a packed index the rest was read as if it were all."""
    (folder / "00000.tar").unlink()
    with pytest.raises(LoaderError, match=r"00000\.index\.json: the shard that it is of is gone"):
        open_packed_index(folder)
