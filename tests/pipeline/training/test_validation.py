"""The loss on held-out pictures: each once, by source, whatever the number of processes."""

from itertools import pairwise

import pytest
import torch

from pipeline.loading.batch import Expected
from pipeline.loading.captions import Drawing
from pipeline.loading.loader import CodeSet, Loader, Reading, Share
from pipeline.loading.selection import Selection
from pipeline.loading.window import Source
from pipeline.training import validation
from pipeline.training.validation import HeldOut, Validation
from tests.support.code_shards import tokenizer, write_codes
from tokenize_shards.packed_index import open_packed_index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_codes(root, (40, 60))
    return root / "codes" / "pretrain"


def held_out(folder, pictures, rank=0, world=1):
    expected = Expected(tokenizer(), Drawing({"llava": 0.5, "alt": 0.5}), 0)
    codes = CodeSet(Source(open_packed_index(folder), Selection(0.5, held_out=True)), expected, Reading())
    return HeldOut(Loader([codes], Share()), min(pictures, codes.samples), world, rank)


def collate(batch, part):
    return torch.from_numpy(batch.codes_BN[part]), torch.tensor([int(uid, 16) for uid in batch.uids_B[part]])


def nats(codes_BN, numbers_B):
    return numbers_B.double() + codes_BN.double().mean(1) / 512


def test_each_picture_counts_once_and_under_its_source(folder):
    one = held_out(folder, 1000)
    batch = one.loader.batch(0, one.pictures)
    losses = nats(*collate(batch, slice(None))).tolist()
    found = one.measure(nats, collate)
    assert (found.pictures, found.loss) == (one.pictures, pytest.approx(sum(losses) / len(losses)))
    for source in ("alt", "llava"):
        mine = [loss for loss, which in zip(losses, batch.sources_B, strict=True) if which == source]
        assert found.by_source[source] == (pytest.approx(sum(mine) / len(mine)), len(mine))
    assert held_out(folder, 1000).measure(nats, collate) == found
    assert held_out(folder, 7).measure(nats, collate).pictures == 7


@pytest.mark.parametrize(("world", "part"), [(2, 64), (3, 4), (8, 3)])
def test_processes_share_the_pictures_and_take_as_many_passes_each(folder, monkeypatch, world, part):
    monkeypatch.setattr(validation, "PART", part)
    count, calls, totals = [], [0], []
    monkeypatch.setattr(HeldOut, "_gathered", lambda self, mine: totals.append(mine) or [mine or {"": (0.0, 1)}])
    for rank in range(world):
        held_out(folder, 1000, rank, world).measure(lambda *given: count.append(1) or nats(*given), collate)
        calls.append(len(count))
    assert len({after - before for before, after in pairwise(calls)}) == 1
    monkeypatch.undo()
    whole = held_out(folder, 1000).measure(nats, collate)
    assert validation._summed(totals).loss == pytest.approx(whole.loss)
    assert validation._summed(totals).pictures == whole.pictures


def test_lines_and_records():
    found = Validation(2.5, 3, {"alt": (2.0, 1), "llava": (2.75, 2)})
    assert found.line() == "validation 2.500 on 3 pictures: alt 2.000 (1), llava 2.750 (2)"
    assert found.record(7) == {
        "step": 7, "validation_loss": 2.5, "by_source": {"alt": 2.0, "llava": 2.75}, "pictures": 3
    }  # fmt: skip
