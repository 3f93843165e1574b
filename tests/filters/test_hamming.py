"""Bands miss no close pair, whatever the cut and the crowd, and a GroupByKey on parts gives the clusters of one
machine."""

import numpy as np
import pyarrow as pa
import pytest

import filters.hamming
from filters.dedup import clusters, first_of_each
from filters.hamming import (
    EVERYWHERE,
    Bands,
    _masks,
    choose_bands,
    connecting_pairs,
    distinct,
    first_in,
    pairs_of_equal,
    part_of,
    sampled,
    spread,
    thinned,
)

SPREADS = {
    "first bits": [63, 62, 61, 60, 59, 58],
    "last bits": [0, 1, 2, 3, 4, 5],
    "one a band": [0, 11, 22, 33, 44, 55],
}


def labels_of(hashes: np.ndarray, bands: Bands) -> list[int]:
    """Cluster distinct sorted hashes over all tables of one cut."""
    pairs = [pair for table in range(max(1, len(bands.tables))) for pair in connecting_pairs(hashes, bands, table)]
    one = np.concatenate([np.zeros(0, np.uint64), *(one for one, _ in pairs)])
    other = np.concatenate([np.zeros(0, np.uint64), *(other for _, other in pairs)])
    assert (np.bitwise_count(one ^ other) <= bands.radius).all()
    return first_of_each(hashes, np.arange(len(hashes)), *thinned(one, other)).tolist()


def by_brute_force(hashes: np.ndarray, radius: int) -> list[int]:
    one, other = np.nonzero(np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= radius)
    return first_of_each(hashes, np.arange(len(hashes)), hashes[one], hashes[other]).tolist()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("spread_", [*SPREADS, "random"])
def test_every_pair_at_the_radius_is_found_with_any_number_of_bands(k, spread_):
    rng = np.random.default_rng(7)
    seeds = rng.integers(0, 2**64, 400, dtype=np.uint64)
    masks = [sum(1 << bit for bit in SPREADS.get(spread_, rng.choice(64, 6, replace=False).tolist())) for _ in seeds]
    twins = seeds ^ np.array(masks, np.uint64)
    hashes = np.unique(np.concatenate([seeds, twins]))
    bands = Bands(6, EVERYWHERE, _masks(EVERYWHERE, 6, k))
    got = labels_of(hashes, bands)
    place = np.searchsorted(hashes, seeds), np.searchsorted(hashes, twins)
    assert [got[i] for i in place[0]] == [got[i] for i in place[1]]
    assert len(set(got)) == 400


def test_the_masks_of_a_choice_have_k_bands_each_and_every_band_in_turn():
    masks = _masks(EVERYWHERE, 6, 2)
    assert len(masks) == 28  # C(8, 2): eight bands of eight bits
    assert {mask.bit_count() for mask in masks} == {16}
    assert sum(masks) == 7 * EVERYWHERE  # each band with each of the seven others


def crowds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    centre = np.uint64(0x8123456789ABCDEF)
    flipped = np.full(1500, centre)
    for _ in range(8):
        flipped ^= np.uint64(1) << rng.integers(0, 64, len(flipped), dtype=np.uint64)
    return {
        "a cube": np.arange(1024, dtype=np.uint64),
        "two cubes far apart": np.concatenate([np.arange(512, dtype=np.uint64), ~np.arange(512, dtype=np.uint64)]),
        "around one hash": flipped,
        "same first half": rng.integers(0, 2**32, 1500, dtype=np.uint64),
        "sparse, same quarter": rng.integers(0, 2**48, 1500, dtype=np.uint64),
    }


@pytest.mark.parametrize("name", list(crowds(np.random.default_rng(0))))
@pytest.mark.parametrize("hot", [4, 64, 4096])
def test_hot_buckets_lose_nothing(monkeypatch, name, hot):
    """Crowds are joined by stars and cut again; with HOT this small nearly every bucket is one."""
    monkeypatch.setattr(filters.hamming, "HOT", hot)
    monkeypatch.setattr(filters.hamming, "PIVOTS", 16)
    hashes = np.unique(crowds(np.random.default_rng(1))[name])
    wanted = by_brute_force(hashes, 6)
    assert labels_of(hashes, Bands(6, EVERYWHERE, _masks(EVERYWHERE, 6, 1))) == wanted
    assert clusters(hashes, 6).tolist() == wanted


def test_the_cut_depends_on_how_many_there_are():
    rng = np.random.default_rng(2)
    few, many = (rng.integers(0, 2**64, count, dtype=np.uint64) for count in (20, 300_000))
    assert choose_bands(few, 6).tables == ()
    assert len(choose_bands(many, 6).tables) in (28, 84)


def test_a_cut_is_chosen_on_a_sample_as_on_all_of_them():
    rng = np.random.default_rng(2)
    sample = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    assert choose_bands(sample, 6, count=20_000) == choose_bands(sample, 6)
    assert len(choose_bands(sample, 6, count=150_000_000).tables) == 84  # longer keys, that fewer agree in


def test_what_each_table_costs_beside_makes_fewer_of_them():
    sample = np.random.default_rng(2).integers(0, 2**64, 20_000, dtype=np.uint64)
    assert len(choose_bands(sample, 6, count=40_000_000).tables) == 84
    assert len(choose_bands(sample, 6, count=40_000_000, table_ns=1000.0).tables) == 28


def test_a_pair_stays_with_the_first_table_that_it_agrees_in():
    bands = Bands(1, EVERYWHERE, (0xF0, 0x0F, 0xFF00))
    one, other = np.zeros(3, np.uint64), np.array([0x01, 0x10, 0x11], np.uint64)
    found = [first_in(one, other, bands, table)[1].tolist() for table in range(3)]
    assert found == [[0x01, 0x10, 0x11], [0x10, 0x11], [0x11]]  # a table is asked for pairs that agree in it


def test_hashes_that_agree_in_the_mask_share_a_part():
    rng = np.random.default_rng(3)
    high = rng.integers(0, 2**16, 6000, dtype=np.uint64) << np.uint64(48)
    parts = part_of(high | rng.integers(0, 2**48, 6000, dtype=np.uint64), 3, 0xFFFF << 48)
    assert parts.tolist() == part_of(high, 3).tolist()
    assert np.bincount(parts.astype(int)).min() > 1800


def test_a_beam_group_by_key_on_parts_gives_the_same_clusters(tmp_path):
    """Batches -> (table, part) -> pairs, each an Arrow batch; the result equals one machine's."""
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    rng = np.random.default_rng(4)
    seeds = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    twins = seeds[:300] ^ np.uint64(0b1000100001)
    hashes = np.concatenate([seeds, twins, seeds[:40], np.arange(200, dtype=np.uint64)])
    rng.shuffle(hashes)
    bands = Bands(6, EVERYWHERE, _masks(EVERYWHERE, 6, 2))
    folder = str(tmp_path)

    def batch_of(*columns: np.ndarray) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [pa.array(column) for column in columns], names=[f"c{n}" for n in range(len(columns))]
        )

    def keyed(batch: pa.RecordBatch):
        return [(key, batch_of(part)) for key, part in spread(batch[0].to_numpy(), bands, parts=3)]

    def paired(group):
        (table, part), batches = group
        members = np.unique(np.concatenate([batch[0].to_numpy() for batch in batches]))
        pairs = list(connecting_pairs(members, bands, table))
        if pairs:
            yield (table, part), batch_of(*thinned(*(np.concatenate(side) for side in zip(*pairs, strict=True))))

    def write(group):
        (table, part), made = group
        for number, batch in enumerate(made):
            np.save(f"{folder}/{table}-{part}-{number}.npy", np.stack([batch[0].to_numpy(), batch[1].to_numpy()]))

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        batches = pipeline | beam.Create([batch_of(part) for part in np.array_split(hashes, 5)])
        pairs = batches | beam.FlatMap(keyed) | beam.GroupByKey() | beam.FlatMap(paired)
        _ = pairs | "by part" >> beam.GroupByKey() | beam.Map(write)
    written = sorted(tmp_path.glob("*.npy"))
    assert len(written) > 28  # several parts of each table
    one, other = np.concatenate([np.load(path) for path in written], axis=1)
    distinct, first, back = np.unique(hashes, return_index=True, return_inverse=True)
    assert first_of_each(distinct, first, one, other)[back].tolist() == clusters(hashes, 6).tolist()


def test_equal_pairs_are_counted_in_any_order():
    assert pairs_of_equal(np.array([], np.uint64)) == 0
    assert pairs_of_equal(np.array([7], np.uint64)) == 0
    assert pairs_of_equal(np.array([5, 9, 5, 2**63, 5, 9], np.uint64)) == 3 + 1


def test_a_sample_takes_hashes_for_their_own_bits(monkeypatch):
    monkeypatch.setattr(filters.hamming, "SAMPLE", 1000)
    hashes = np.arange(4000, dtype=np.uint64)
    assert sampled(hashes[:999]).tolist() == list(range(999))
    eighth = sampled(hashes).tolist()
    assert 490 <= len(eighth) <= 510
    assert sampled(hashes[::-1]).tolist() == eighth[::-1]


@pytest.mark.parametrize("parts", [1, 2, 63, 64, 256, 1000])
def test_parts_of_every_table_are_even(parts):
    """A table whose bits are all high left the lower half of the product zero: with 64 parts all was in one."""
    hashes = np.random.default_rng(5).integers(0, 2**64, 40_000, dtype=np.uint64)
    bands = Bands(6, EVERYWHERE, _masks(EVERYWHERE, 6, 2))
    sizes: dict[int, list[int]] = {}
    for (table, part), some in spread(hashes, bands, parts):
        assert 0 <= part < parts
        sizes.setdefault(table, []).append(len(some))
    assert len(sizes) == 28
    assert all(sum(of_table) == 40_000 for of_table in sizes.values())
    assert all(max(of_table) < 2.2 * 40_000 / parts + 30 for of_table in sizes.values())


def test_distinct_numbers_come_once_and_in_order():
    for kind in (np.uint64, np.int64):
        assert distinct(np.array([5, 2, 5, 9, 2, 2], kind)).tolist() == [2, 5, 9]
        assert distinct(np.array([], kind)).tolist() == []
        assert distinct(np.array([7], kind)).dtype == kind
    top = 2**64 - 1
    assert distinct(np.array([top, 0, top], np.uint64)).tolist() == [0, top]
