"""CodeLoader: each picture once per epoch in an order that no number of processes changes, found again at any step."""

from collections import Counter
from itertools import islice

import pytest
from torch.utils.data import DataLoader

from pipeline.training.loader import CodeLoader
from tests.support.code_shards import row_of, write_codes
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.packed_index import write_packed_index
from tokenize_shards.samples import LoaderError

UNEVEN = (100, 37, 5, 250, 80, 13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("uneven")
    write_codes(root, UNEVEN)
    write_packed_index(root / "codes" / "pretrain")
    return root / "codes" / "pretrain"


def read(folder, first, steps, batch=24, rank=0, world=1):
    loader = CodeLoader(folder, batch, seed=3, rank=rank, world=world, step=first, prefetch=0)
    return [list(zip(b.epoch_B.tolist(), b.uids_B, strict=True)) for b in islice(loader, steps)]


@pytest.fixture(scope="module")
def alone(folder):
    """Eighty steps of 24, nearly four epochs of 485 samples."""
    return read(folder, 0, 80)


def test_each_epoch_has_each_picture_once_in_its_own_order(alone):
    drawn = [pair for step in alone for pair in step]
    everything = {row_of(number)["uid"].hex() for number in range(485)}
    epochs = [[uid for epoch, uid in drawn if epoch == number] for number in range(3)]
    assert all(len(uids) == 485 and set(uids) == everything for uids in epochs)
    assert [epoch for epoch, _ in drawn] == sorted(epoch for epoch, _ in drawn)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("world", range(1, 9))
def test_any_world_reads_the_same_steps_whatever_the_shards(folder, alone, world):
    """24 pictures a step, or as many fewer as the processes can share evenly."""
    size = 24 // world * world
    shares = [read(folder, 5, 9, size // world, rank, world) for rank in range(world)]
    together = [pair for step in zip(*shares, strict=True) for share in step for pair in share]
    assert together == [pair for step in alone for pair in step][5 * size : 14 * size]


def test_the_world_may_change_at_any_step_and_nothing_comes_twice_or_never(folder, alone):
    """Killed after 7, 20, 21 and 44 steps, gone on with another number of processes each time."""
    together = []
    for first, last, world in ((0, 7, 3), (7, 20, 8), (20, 21, 1), (21, 44, 4), (44, 61, 2)):
        shares = [read(folder, first, last - first, 24 // world, rank, world) for rank in range(world)]
        together += [[pair for share in step for pair in share] for step in zip(*shares, strict=True)]
    assert together == alone[:61]
    counts = Counter(pair for step in together for pair in step if pair[0] < 3)
    assert set(counts.values()) == {1}
    assert len(counts) == 3 * 485


def test_there_may_be_fewer_shards_than_processes(folder, alone):
    shares = [read(folder, 0, 3, 1, rank, 24) for rank in range(24)]
    assert [[share[0] for share in step] for step in zip(*shares, strict=True)] == alone[:3]


def test_under_a_data_loader_the_workers_batches_come_in_the_same_order(folder, alone):
    loader = DataLoader(CodeLoader(folder, 24, seed=3, step=2), batch_size=None, num_workers=2)
    batches = list(islice(loader, 9))
    assert [list(zip(b.epoch_B.tolist(), b.uids_B, strict=True)) for b in batches] == alone[2:11]
    assert [b.step for b in batches] == list(range(2, 11))


def test_of_a_store_the_batches_are_those_of_a_disk(folder, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    stored = upload(folder.parent.parent, memory_root()) / "codes" / "pretrain"
    assert read(str(stored), 0, 25) == alone[:25]


def test_captions_are_those_that_are_asked_for(folder):
    batch = next(iter(CodeLoader(folder, 8, captions={"llava": 1.0})))
    assert batch.codes_BN.dtype == "int64"
    assert batch.codes_BN.shape == (8, 64)
    numbers = [int(uid, 16) for uid in batch.uids_B]
    assert batch.captions_B == [f"long {number}" for number in numbers]
    assert batch.sources_B == ["llava"] * 8
    assert all((batch.codes_BN[place] == row_of(n)["codes"]).all() for place, n in enumerate(numbers))


def test_wrong_uses_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"rank is 2, wanted 0 to 1 .world 2."):
        CodeLoader(folder, rank=2, world=2)
    for given, says in (({"batch": 0}, "batch is 0, wanted 1 or more"), ({"step": -1}, "step is -1, wanted 0 or more")):
        with pytest.raises(ValueError, match=says):
            CodeLoader(folder, **given)
    with pytest.raises(ValueError, match="weights must not be negative"):
        CodeLoader(folder, captions={"alt": -1.0})
    with pytest.raises(LoaderError, match=r"no sample has a caption from 'nope'; the sources that there are: alt"):
        CodeLoader(folder, captions={"nope": 1.0})
    with pytest.raises(LoaderError, match="no sample of codes; wanted a folder like RUN/codes/TIER"):
        CodeLoader(tmp_path / "nothing")
