"""What is read of a set: the split by hash(uid), the first so many, a bit per sample."""

import numpy as np
import pytest

from pipeline.loading.selection import Bits, Selection
from tests.support.code_shards import write_codes
from tokenize_shards.packed_index import open_packed_index


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    write_codes(root, (60, 0, 90, 50))
    return open_packed_index(root / "codes" / "pretrain")


def chosen(index, selection):
    return [
        f"{first:016x}{second:016x}"
        for number, uid_N2 in index.uids()
        for first, second in uid_N2[selection.of(number, uid_N2)].tolist()
    ]


def test_the_split_is_whole_disjoint_and_of_no_seed(index):
    train, held_out = Selection(0.25, seed=1), Selection(0.25, held_out=True, seed=2)
    both = chosen(index, train) + chosen(index, held_out)
    assert len(both) == len(set(both)) == 200
    assert len(chosen(index, held_out)) == pytest.approx(50, abs=20)
    assert chosen(index, Selection(0.25, held_out=True, seed=9)) == chosen(index, held_out)
    assert set(chosen(index, Selection(0.1, held_out=True))) < set(chosen(index, held_out))
    assert train.counts(index).tolist()[1] == 0
    assert train.counts(index).sum() + held_out.counts(index).sum() == 200


def test_so_many_pictures_are_the_first_by_hash_of_uid_and_seed(index):
    few, more = (Selection(0.25, bound=Selection(0.25).smallest(index, count)) for count in (10, 30))
    assert len(chosen(index, few)) == 10
    assert len(chosen(index, more)) == 30
    assert set(chosen(index, few)) < set(chosen(index, more)) < set(chosen(index, Selection(0.25)))
    assert Selection(bound=Selection().smallest(index, 1000)).counts(index).sum() == 200
    other = Selection(seed=5)
    assert set(chosen(index, Selection(bound=other.smallest(index, 10), seed=5))) != set(chosen(index, few))


def test_all_samples_are_counted_without_a_look_at_them(index, monkeypatch):
    monkeypatch.setattr(type(index), "uids", lambda self: pytest.fail("uids were read"))
    assert Selection().counts(index).tolist() == [60, 0, 90, 50]


def test_bits_take_an_eighth_of_a_byte_each(index):
    rng = np.random.default_rng(0)
    wanted = rng.random(200) < 0.3
    bits = Bits(np.packbits(wanted, bitorder="little"), np.array([0, 60, 60, 150]))
    assert len(bits.packed) == 25
    assert Selection(bits=bits).counts(index).tolist() == [
        wanted[:60].sum(),
        0,
        wanted[60:150].sum(),
        wanted[150:].sum(),
    ]
    assert np.array_equal(bits.of(3, 50), wanted[150:])
