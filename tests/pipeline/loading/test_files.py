"""Members are read by offset: of files that the system fetches, of a store's shards that are fetched whole."""

import pytest

from pipeline.loading.files import ShardFiles
from tests.support.code_shards import write_codes
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.samples import LoaderError, find_shards


@pytest.fixture
def run(tmp_path):
    write_codes(tmp_path / "run", (3, 4, 2))
    return tmp_path / "run"


def test_bytes_are_those_of_the_files_and_what_is_let_go_is_opened_again(run):
    shards = find_shards(run / "codes", "pretrain")
    files = ShardFiles(shards)
    files.expect([0, 1])
    assert files.read(2, 512, 700) == shards[2].path.read_bytes()[512:1212]
    files.keep([1])
    assert set(files._open) == {1}
    assert files.read(0, 0, 100) == shards[0].path.read_bytes()[:100]
    with pytest.raises(LoaderError, match="damaged shard"):
        files.read(0, 0, 10**6)
    files.close()


@pytest.mark.parametrize(("memory", "stays"), [(0, False), (1 << 20, True)])
def test_of_a_store_shards_are_fetched_whole_and_stay_where_they_fit(run, tmp_path, monkeypatch, memory, stays):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    here = find_shards(run / "codes", "pretrain")
    files = ShardFiles(find_shards(upload(run, memory_root()) / "codes", "pretrain"), memory)
    assert files.read(1, 512, 300) == here[1].path.read_bytes()[512:812]
    files.keep([0])
    assert (1 in files._bytes) is stays
    files.close()
