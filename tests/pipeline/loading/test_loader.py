"""Steps over one set or a blend of several: any process's share of any step, found at once."""

from itertools import islice, pairwise

import pytest

from pipeline.loading.batch import Expected
from pipeline.loading.blend import Blend
from pipeline.loading.captions import Drawing
from pipeline.loading.loader import CodeSet, Loader, Reading, Share
from pipeline.loading.selection import Selection
from pipeline.loading.window import Source
from tests.support.code_shards import tokenizer, write_codes
from tokenize_shards.packed_index import open_packed_index
from tokenize_shards.samples import LoaderError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_codes(root, (30, 20, 25))
    write_codes(root, (16,), tier="finetune")
    return root


def code_set(root, tier="pretrain", selection=None, window=2):
    expected = Expected(tokenizer(), Drawing({"alt": 1.0}), 0)
    return CodeSet(
        Source(open_packed_index(root / "codes" / tier), selection or Selection()), expected, Reading(window)
    )


def pairs(batch):
    return list(zip(batch.epoch_B.tolist(), batch.uids_B, strict=True))


def test_steps_start_anywhere_by_stride_and_ahead(root):
    loader = Loader([code_set(root)], Share(1, 2, 5))
    steps = [pairs(batch) for batch in islice(loader.steps(0), 20)]
    ahead = Loader([code_set(root)], Share(1, 2, 5), prefetch=3).steps(3, 4)
    assert [pairs(batch) for batch in islice(ahead, 4)] == steps[3:19:4]
    ahead.close()


def test_a_blend_by_epochs_passes_each_set_as_often_as_asked(root):
    sets = [code_set(root), code_set(root, "finetune")]
    blend = Blend.by_epochs([one.samples for one in sets], [1, 2], seed=0)
    loader = Loader(sets, Share(0, 1, 107), blend=blend)
    both = [pair for batch in islice(loader.steps(0), 40) for pair in pairs(batch)]  # 40 passes over 75 + 2 x 16
    of = blend.run(0, 4280).set_B.tolist()
    for number, one in enumerate(sets):
        mine = [pair for pair, which in zip(both, of, strict=True) if which == number]
        assert mine == pairs(one.batch(0, len(mine)))
    assert of.count(0) == pytest.approx(40 * 75, abs=60)  # 4,280 positions are one block and a bit
    assert pairs(loader.batch(5, 9)) == both[5:9]


def test_a_window_of_one_shard_reads_shard_after_shard(root):
    codes = code_set(root, window=1)
    numbers = [codes.index.shards[n].samples for (n,) in codes.order.epoch(0).windows]
    batch = codes.batch(0, 75)
    order = [(int(uid, 16) >= 30) + (int(uid, 16) >= 50) for uid in batch.uids_B]
    assert sum(one != other for one, other in pairwise(order)) == 2
    assert sorted(numbers) == [20, 25, 30]


def test_nothing_left_is_refused(root):
    with pytest.raises(LoaderError, match=r"pretrain: of 75 no sample is left to read: look at train.where"):
        code_set(root, selection=Selection(0.9999999))
